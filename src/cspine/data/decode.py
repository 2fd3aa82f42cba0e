"""A study for inference: its files to the volumes that the models see, in a process of its own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from cspine.config import Preprocess
from cspine.data.geometry import Geometry
from cspine.data.stream import prepare_volumes
from cspine.data.study import StudyError
from cspine.data.workers import STUDY_TIMEOUT_S, Died, run_with_second_try


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
    once_more = partial(replace, fast=False)
    for task, study in run_with_second_try(decode_study, tasks, processes, once_more, STUDY_TIMEOUT_S):
        yield task, _bad(study.reason) if isinstance(study, Died) else study


def decode_study(task: DecodeTask) -> DecodedStudy:
    try:
        study = prepare_volumes(task.folder, task.preprocesses, task.fast)
    except StudyError as error:
        return _bad(error.reason, error.skipped)
    except Exception as error:
        # One study must not end the submission, whatever is wrong with it; the reason is listed.
        return _bad(f"{type(error).__name__}: {error}")
    return DecodedStudy(study.volumes, study.geometry, study.skipped)


def _bad(reason: str, skipped: tuple[tuple[str, str], ...] = ()) -> DecodedStudy:
    return DecodedStudy({}, None, skipped, reason)
