"""The kernel's run: priors within a second, then predictions, and a whole submission.csv whatever happens.

Nothing here that takes long to import: torch and its kin come after the priors are on the disk.
"""

import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from cspine.bundle import MANIFEST, Bundle, read
from cspine.decoders import offer_decoders
from cspine.errors import UserError
from cspine.interrupts import Terminated, raise_on_sigterm
from cspine.submission_file import SubmissionFile, read_priors, read_rows

# Kaggle ends a kernel after nine.
HOURS = 8.5
STUDY_SECONDS = 900.0
READERS = 2
# /kaggle/input/<dataset>/ or /kaggle/input/<kind>/<owner>/<dataset>/, looked at level by level because a glob over
# everything would list hundreds of thousands of slices.
SEARCH_DEPTH = 4


@dataclass(frozen=True)
class Request:
    """Where the inputs are and what comes out; hours that all may take, seconds that reading one study may."""

    inputs: Path
    output: Path
    hours: float = HOURS
    study_seconds: float = STUDY_SECONDS
    readers: int = READERS
    started: float = 0.0  # time.monotonic() when the process began


def run_offline(request: Request) -> int:
    """0 where submission.csv is whole. Raises UserError where the weights or the data are not attached."""
    log = _log_since(request.started)
    root = find_folder(request.inputs, "test.csv")
    folder = find_folder(request.inputs, MANIFEST)
    file = SubmissionFile(request.output, read_rows(root / "test.csv"), read_priors(folder / MANIFEST))
    log(f"{request.output}: {len(file.rows)} rows hold the priors")
    bundle = read(folder)
    try:
        with raise_on_sigterm():
            _predict(request, file, bundle, root / "test_images", log)
    except Terminated:
        log("told to end: what is predicted so far is written")
    except Exception as error:
        # The rows are whole and valid; a status other than 0 would throw them away.
        traceback.print_exc()
        log(f"stopped by {type(error).__name__}: {error}; what is not predicted keeps the priors")
    return 0


def _predict(
    request: Request, file: SubmissionFile, bundle: Bundle, images: Path, log: Callable[[str], object]
) -> None:
    offer_decoders(bundle, log)
    # Late, because importing torch takes seconds.
    from cspine.dispatch import Limits
    from cspine.submission import predict_into

    limits = Limits(request.readers, request.started + 3600 * request.hours, request.study_seconds)
    outcome = predict_into(file, bundle, images, "auto", limits, log, complain=log)
    log(f"{outcome.predicted} studies predicted, {len(outcome.bad)} with the prior")
    stage1 = [str(run.config["name"]) for run in bundle.stage1]
    log(split_text(outcome.seconds, stage1, outcome.predicted))


def split_text(seconds: Counter[str], stage1: Iterable[str], studies: int) -> str:
    """Seconds a study by what they were spent on; reading and decoding are those of processes side by side."""
    parts = by_stage(seconds, stage1)
    return "seconds a study: " + ", ".join(f"{name} {value / max(1, studies):.3f}" for name, value in parts.items())


def by_stage(seconds: Counter[str], stage1: Iterable[str]) -> dict[str, float]:
    """Seconds of reading, decoding, level finding (all `stage1` runs) and fracture heads (all other runs)."""
    levels = sum(seconds[run] for run in stage1)
    heads = sum(seconds.values()) - levels - seconds["reading"] - seconds["decoding"]
    return {
        "reading": seconds["reading"],
        "decoding": seconds["decoding"],
        "level finding": levels,
        "fracture heads": heads,
    }


def find_folder(inputs: Path, name: str) -> Path:
    """The first folder, at most a few levels down, that holds a file or folder of this name."""
    for depth in range(SEARCH_DEPTH + 1):
        if found := sorted(inputs.glob("/".join(["*"] * depth + [name]))):
            return found[0].parent
    raise UserError(f"{inputs}: no folder in it holds {name}; is the dataset attached to the kernel?")


def _log_since(started: float) -> Callable[[str], object]:
    return lambda text: print(f"[{time.monotonic() - started:8.1f} s] {text}", flush=True)
