"""How fast studies become cached pixels: the floor, ours, and the usual way, round by round in the same processes."""

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path

import cv2
import dicomsdl
import numpy as np
import pydicom
from tqdm import tqdm

from cspine.benchmarks.recompress import lossless_copy
from cspine.config import Preprocess
from cspine.data.cache import Task, prepare_study
from cspine.data.dicom import Stack, load_study, scan_study
from cspine.data.preprocess import Crop, plan_crop
from cspine.data.resample import resample
from cspine.windows import window_hu


@dataclass(frozen=True)
class Subject:
    """A study on the disk, with what the floor is given for nothing: the order of its slices and the crop."""

    folder: Path
    name: str
    stack: Stack
    crop: Crop
    settings: Preprocess


def decode_table(folders: Sequence[Path], settings: Preprocess, rounds: int, processes: Sequence[int]) -> str:
    """Slices a second of the three ways for each study and for a lossless JPEG copy of it; medians over the rounds."""
    lines = [
        f"{'study':34}{'processes':>10}{'floor':>9}{'ours':>9}{'usual':>9}{'ours/floor':>12}{'ours/usual':>12}",
    ]
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        subjects = [
            _subject(folder, settings)
            for original in folders
            for folder in (original, lossless_copy(original, Path(scratch) / f"jpeg-{original.name}"))
        ]
        for subject in subjects:
            one = None
            for count in processes:
                floor, ours, usual = _measure(subject, count, rounds, Path(scratch))
                gain = f"  {ours / one:.2f} x 1 process" if one else ""
                one = one or ours
                lines.append(
                    f"{subject.name[-33:]:34}{count:>10}{floor:>9.0f}{ours:>9.0f}{usual:>9.0f}"
                    f"{ours / floor:>12.2f}{ours / usual:>12.2f}{gain}"
                )
    lines += [
        "slices a second, medians of the rounds, files in the page cache. floor: the fastest decoder (plain bytes",
        "for uncompressed files, dicomsdl for JPEG) and the resampling, nothing else. ours: prepare, from the folder",
        "to the file in the cache. usual: pydicom's pixel_array slice by slice, then OpenCV's resize.",
    ]
    return "\n".join(lines)


def _subject(folder: Path, settings: Preprocess) -> Subject:
    study, stack = load_study(folder), scan_study(folder)
    encoding = stack.headers[0].encoding
    name = f"{folder.name[:14]} {encoding.rows} px {encoding.syntax.name.split(',')[0]}"
    return Subject(folder, name, stack, plan_crop(study.volume, study.geometry, settings), settings)


def _measure(subject: Subject, processes: int, rounds: int, scratch: Path) -> tuple[float, float, float]:
    """Slices a second by the three ways, in so many processes that are already running."""
    ways: tuple[Callable[[int], int], ...] = (
        partial(_floor, subject),
        partial(_ours, subject, scratch),
        partial(_usual, subject),
    )
    rates: list[list[float]] = [[], [], []]
    with multiprocessing.get_context("spawn").Pool(processes, cv2.setNumThreads, (1,)) as pool:
        for way in ways:
            _rate(pool, way, processes)  # the first call imports and compiles
        for _ in tqdm(range(rounds), f"{subject.name}, {processes} process(es)", unit="round", leave=False):
            for found, way in zip(rates, ways, strict=True):
                found.append(_rate(pool, way, processes))
    floor, ours, usual = map(statistics.median, rates)
    return floor, ours, usual


def _rate(pool: Pool, way: Callable[[int], int], processes: int) -> float:
    began = time.perf_counter()
    slices = sum(pool.map(way, range(processes), chunksize=1))
    return slices / (time.perf_counter() - began)


def _floor(subject: Subject, place: int) -> int:  # noqa: ARG001
    first = subject.stack.headers[0].encoding
    buffer = np.empty((first.rows, first.columns), np.int16)
    out = np.empty((subject.settings.size_px,) * 2, np.uint8)
    crop, limits = subject.crop, window_hu(subject.settings.windows[0])
    for header in subject.stack.headers:
        pixels = buffer
        if header.encoding.offset is not None:
            with open(header.file, "rb", buffering=0) as stream:  # noqa: PTH123
                stream.seek(header.encoding.offset)
                stream.readinto(buffer.data.cast("B"))
        else:
            pixels = dicomsdl.open(str(header.file)).pixelData(storedvalue=True).view(np.int16)
        resample(pixels, (crop.top, crop.left), (crop.height, crop.width), limits, out)
    return len(subject.stack.headers)


def _ours(subject: Subject, scratch: Path, place: int) -> int:
    target = scratch / f"cache-{place}"
    (target / f"{subject.folder.name}.json").unlink(missing_ok=True)
    outcome = prepare_study(Task(subject.folder.name, subject.folder, None, target, subject.settings))
    if outcome.bad:
        raise RuntimeError(outcome.bad)
    return outcome.slices


def _usual(subject: Subject, place: int) -> int:  # noqa: ARG001
    size = subject.settings.size_px
    for header in subject.stack.headers:
        cv2.resize(pydicom.dcmread(header.file).pixel_array, (size, size))
    return len(subject.stack.headers)
