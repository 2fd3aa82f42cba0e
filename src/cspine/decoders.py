"""Which DICOM decoders this Python has, and those that the bundle brings where one is missing."""

import importlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

from cspine.bundle import Bundle
from cspine.paths import sha256

# Module -> what it is for, and its distribution's name.
DECODERS: Mapping[str, tuple[str, str]] = {
    "pydicom": ("every file", "pydicom"),
    "dicomsdl": ("lossless JPEG, twice as fast", "dicomsdl"),
    "gdcm": ("every compressed file", "python-gdcm"),
}
INSTALL_S = 120.0


def missing_decoders() -> list[str]:
    """The modules of DECODERS that cannot be imported."""
    return [module for module in DECODERS if find_spec(module) is None]


def offer_decoders(bundle: Bundle, log: Callable[[str], object]) -> None:
    """Install what is missing from the bundle's wheels, offline and for this process and its children alone.

    Nothing here ends the run: what stays missing is told, and files that need it cost their study.
    """
    missing = missing_decoders()
    wheels = [bundle.folder / name for name in bundle.wheels]
    for module in missing:
        purpose, distribution = DECODERS[module]
        told = f"{module} ({purpose}) is not installed"
        fitting = [
            wheel for wheel in wheels if wheel.name.lower().startswith(distribution.replace("-", "_").lower() + "-")
        ]
        if not fitting:
            log(f"{told}, and the bundle has no wheels of it: python kernels/build.py --wheels DIR")
            continue
        altered = [wheel for wheel in fitting if not wheel.is_file() or sha256(wheel) != bundle.wheels[wheel.name]]
        if altered:
            log(f"{told}; {altered[0].name} is missing or not the one in the manifest")
        else:
            log(f"{told}; " + _install(distribution, bundle.folder, module))


def _install(distribution: str, folder: Path, module: str) -> str:
    # Beside what is there, not over it; the folder is left to the machine, which is thrown away.
    target = tempfile.mkdtemp(prefix=f"{module}-")
    options = ["--quiet", "--no-index", "--no-deps", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--find-links", str(folder), "--target", target]
    try:
        done = subprocess.run([*command, distribution], capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except subprocess.TimeoutExpired:
        return f"pip did not install it within {INSTALL_S:.0f} s"
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["pip says nothing"]
        return f"its wheel does not install: {lines[-1]}"
    sys.path.append(target)
    importlib.invalidate_caches()
    return "installed from the bundle's wheels"
