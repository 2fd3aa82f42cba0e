"""The greatest memory that a stretch of work took, of this process (not of its loader's workers) and of its GPU."""

from pathlib import Path

import torch

PROCESS = Path("/proc/self")


def begin_peaks(device: torch.device) -> None:
    """Forget the peaks so far.

    Linux lets a process do so by writing 5 to clear_refs; where a sandbox forbids it, the peak of the resident memory
    stays that since the process began.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        (PROCESS / "clear_refs").write_text("5")
    except PermissionError:
        return


def peaks_gb(device: torch.device) -> dict[str, float | None]:
    """`peak_rss_gb`, resident, and `peak_gpu_gb`, allocated by torch (None without a GPU), since `begin_peaks`."""
    status = (PROCESS / "status").read_text().splitlines()
    resident_kib = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    gpu = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return {
        "peak_rss_gb": round(resident_kib * 1024 / 1e9, 3),
        "peak_gpu_gb": None if gpu is None else round(gpu / 1e9, 3),
    }
