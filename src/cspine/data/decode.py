"""A study for inference: its folder of DICOM files to the volumes that the models see, in a process of its own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cspine.config import Preprocess
from cspine.data.dicom import StudyError, load_study
from cspine.data.geometry import Geometry
from cspine.data.preprocess import preprocess
from cspine.data.workers import Died, run_with_second_try


@dataclass(frozen=True)
class DecodeTask:
    """One study to decode; `fast` allows dicomsdl."""

    uid: str
    folder: Path
    preprocesses: tuple[Preprocess, ...]
    fast: bool = True


@dataclass(frozen=True)
class DecodedStudy:
    """`volumes` are uint8 (z, windows, y, x), one for each preprocessing; `bad` says why there are none."""

    volumes: dict[Preprocess, np.ndarray]
    geometry: Geometry | None
    skipped: tuple[tuple[str, str], ...] = ()
    bad: str | None = None


def decode_studies(tasks: Sequence[DecodeTask], processes: int) -> Iterator[tuple[DecodeTask, DecodedStudy]]:
    """Studies as they are decoded, a few ahead of the caller; one that kills its process is tried by pydicom once."""
    for task, study in run_with_second_try(decode_study, tasks, processes, lambda task: replace(task, fast=False)):
        died = isinstance(study, Died)
        yield task, _bad(f"ends the decoding process (exit status {study.exitcode})") if died else study


def decode_study(task: DecodeTask) -> DecodedStudy:
    try:
        study = load_study(task.folder, task.fast)
        volumes = {settings: preprocess(study.volume, study.geometry, settings) for settings in task.preprocesses}
    except StudyError as error:
        return _bad(error.reason, error.skipped)
    except Exception as error:
        # One study must not end the submission, whatever is wrong with it; the reason is listed.
        return _bad(f"{type(error).__name__}: {error}")
    return DecodedStudy(volumes, study.geometry, study.skipped)


def _bad(reason: str, skipped: tuple[tuple[str, str], ...] = ()) -> DecodedStudy:
    return DecodedStudy({}, None, skipped, reason)
