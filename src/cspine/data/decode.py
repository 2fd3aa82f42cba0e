"""A study for inference: its files to the volumes that the models see, in a process of its own."""

import math
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from cspine.config import Preprocess
from cspine.data.geometry import Geometry
from cspine.data.stream import prepare_volumes
from cspine.data.study import StudyError
from cspine.data.workers import STUDY_TIMEOUT_S, Died, run_with_second_try

READING_THREADS = 4


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
    read_s: float = 0.0
    decode_s: float = 0.0


def decode_studies(
    tasks: Sequence[DecodeTask], processes: int, timeout_s: float = STUDY_TIMEOUT_S, until: float = math.inf
) -> Generator[tuple[DecodeTask, DecodedStudy], None, None]:
    """Studies as they are decoded, so many processes ahead of the caller and no further: memory stays flat.

    One that kills its process is tried by pydicom once. `until` is a time.monotonic() at which it ends.
    """
    once_more = partial(replace, fast=False)
    for task, study in run_with_second_try(decode_study, tasks, processes, once_more, timeout_s, until):
        yield task, _bad(study.reason) if isinstance(study, Died) else study


def decode_study(task: DecodeTask) -> DecodedStudy:
    began = time.perf_counter()
    read_ahead(task.folder)
    read = time.perf_counter()
    study = decode_files(task)
    return replace(study, read_s=read - began, decode_s=time.perf_counter() - read)


def read_ahead(path: Path) -> None:
    """Have the system read a study's files into its memory, several at a time: a network's disk answers slowly."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    with ThreadPoolExecutor(READING_THREADS) as pool:
        list(pool.map(_read_through, [files[first::READING_THREADS] for first in range(READING_THREADS)]))


def _read_through(files: Sequence[Path]) -> None:
    buffer = bytearray(1 << 20)
    for file in files:
        try:
            with file.open("rb", buffering=0) as stream:
                while stream.readinto(buffer):
                    pass
        except OSError:
            continue  # the decoder meets it again, and lists it


def decode_files(task: DecodeTask) -> DecodedStudy:
    """A study as it comes from the system's memory or the disk; a bad one says why."""
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
