"""Peak memory of a process that prepares studies, against the decoded volume of the longest one."""

import multiprocessing
import resource
import tempfile
from pathlib import Path

from cspine.benchmarks.recompress import long_copy
from cspine.config import Preprocess
from cspine.data.cache import Task, prepare_study
from cspine.data.dicom import scan_study

LONGEST = 1082  # slices of study 20756


def memory_table(folder: Path, settings: Preprocess) -> str:
    """Peak resident memory after one and after three studies of 1,082 slices, each in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        study = long_copy(folder, Path(scratch) / "long", LONGEST)
        first = scan_study(study).headers[0].encoding
        volume_mb = LONGEST * first.rows * first.columns * 2 / 1e6
        empty = _peak_mb(study, Path(scratch), settings, 0)
        lines = [
            f"{LONGEST} slices of {first.rows} x {first.columns}: {volume_mb:.0f} MB decoded; imports {empty:.0f} MB"
        ]
        for count in (1, 3):
            peak = _peak_mb(study, Path(scratch), settings, count)
            lines.append(f"{count} studies: peak {peak:.0f} MB, {peak / volume_mb:.2f} times the volume")
    return "\n".join(lines)


def _peak_mb(study: Path, scratch: Path, settings: Preprocess, count: int) -> float:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_prepare, (study, scratch, settings, count))


def _prepare(study: Path, scratch: Path, settings: Preprocess, count: int) -> float:
    for index in range(count):
        outcome = prepare_study(Task(f"study-{index}", study, None, scratch / f"cache-{count}", settings))
        if outcome.bad:
            raise RuntimeError(outcome.bad)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
