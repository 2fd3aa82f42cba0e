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
from cspine.data.dicom import load_study, scan_study
from cspine.data.preprocess import Crop, plan_crop
from cspine.data.resample import resample
from cspine.data.study import Stack
from cspine.windows import window_hu

EXPLAINED = (
    "Slices a second, medians of the rounds, files in the page cache. Floor: the fastest decoder (plain bytes for",
    "uncompressed files, dicomsdl for JPEG) and the resize of the crop, nothing else; A by OpenCV, B by resample.py,",
    "which also windows. Ours: prepare, from the folder to the file in the cache. Usual: pydicom's pixel_array slice",
    "by slice, then OpenCV's resize of the whole slice.",
)


@dataclass(frozen=True)
class Subject:
    """A study on the disk, with what the floor is given for nothing: the order of its slices and the crop."""

    folder: Path
    name: str
    stack: Stack
    crop: Crop
    settings: Preprocess


def decode_table(folders: Sequence[Path], settings: Preprocess, rounds: int, processes: Sequence[int]) -> str:
    """Slices a second of each way for each study and for a lossless JPEG copy of it; medians over the rounds."""
    heads = ("floor A", "floor B", "ours", "usual", "ours/A", "ours/B", "ours/usual")
    lines = [f"{'study':36}{'processes':>10}" + "".join(f"{head:>11}" for head in heads)]
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        subjects = [
            find_subject(folder, settings)
            for number, original in enumerate(folders)
            for folder in (original, lossless_copy(original, Path(scratch) / f"jpeg-{number}"))
        ]
        for subject in subjects:
            alone = None
            for count in processes:
                rates = _measure(subject, count, rounds, Path(scratch))
                ours = rates[2]
                ratios = [ours / rate for rate in (*rates[:2], rates[3])]
                gain = f"  {ours / alone:.2f} x 1 process" if alone else ""
                alone = alone or ours
                cells = [f"{rate:>11.0f}" for rate in rates] + [f"{ratio:>11.2f}" for ratio in ratios]
                lines.append(f"{subject.name:36}{count:>10}" + "".join(cells) + gain)
    return "\n".join([*lines, *EXPLAINED])


def find_subject(folder: Path, settings: Preprocess) -> Subject:
    """A study, scanned and planned."""
    study, stack = load_study(folder), scan_study(folder)
    encoding = stack.headers[0].encoding
    coding = "JPEG lossless" if encoding.syntax.is_encapsulated else "uncompressed"
    name = f"{len(stack.headers)} slices, {study.geometry.pixel_spacing_mm[0]:.2f} mm, {coding}"
    return Subject(folder, name, stack, plan_crop(study.volume, study.geometry, settings), settings)


def _measure(subject: Subject, processes: int, rounds: int, scratch: Path) -> list[float]:
    """Slices a second: both floors, ours, the usual way, in so many processes that are already running."""
    ways: list[Callable[[int], int]] = [
        partial(decode_floor, subject, _resize_by_opencv),
        partial(decode_floor, subject, resize_by_ours),
        partial(_ours, subject, scratch),
        partial(_usual, subject),
    ]
    rates: list[list[float]] = [[] for _ in ways]
    with multiprocessing.get_context("spawn").Pool(processes, cv2.setNumThreads, (1,)) as pool:
        for way in ways:
            _rate(pool, way, processes)  # the first call imports and compiles
        for _ in tqdm(range(rounds), f"{subject.name}, {processes} process(es)", unit="round", leave=False):
            for found, way in zip(rates, ways, strict=True):
                found.append(_rate(pool, way, processes))
    return [statistics.median(found) for found in rates]


def _rate(pool: Pool, way: Callable[[int], int], processes: int) -> float:
    began = time.perf_counter()
    slices = sum(pool.map(way, range(processes), chunksize=1))
    return slices / (time.perf_counter() - began)


def decode_floor(subject: Subject, resize: Callable[[np.ndarray, Subject], np.ndarray], place: int) -> int:  # noqa: ARG001
    """Decode a study's slices by the fastest decoder and resize each, nothing else; how many."""
    first = subject.stack.headers[0].encoding
    pixels = np.empty((first.rows, first.columns), np.int16)
    for header in subject.stack.headers:
        if header.encoding.offset is not None:
            with header.file.open("rb", buffering=0) as stream:
                stream.seek(header.encoding.offset)
                stream.readinto(pixels.data.cast("B"))
        else:
            pixels = dicomsdl.open(str(header.file)).pixelData(storedvalue=True).view(np.int16)
        resize(pixels, subject)
    return len(subject.stack.headers)


def _resize_by_opencv(pixels: np.ndarray, subject: Subject) -> np.ndarray:
    crop, size = subject.crop, subject.settings.size_px
    top, left = max(crop.top, 0), max(crop.left, 0)
    field = pixels[top : crop.top + crop.height, left : crop.left + crop.width]
    mode = cv2.INTER_AREA if crop.height > size else cv2.INTER_LINEAR
    return cv2.resize(field, (size, size), interpolation=mode)


def resize_by_ours(pixels: np.ndarray, subject: Subject) -> np.ndarray:
    """The crop of a slice, windowed and resized by resample.py."""
    crop, out = subject.crop, np.empty((subject.settings.size_px,) * 2, np.uint8)
    limits = window_hu(subject.settings.windows[0])
    resample(pixels, (crop.top, crop.left), (crop.height, crop.width), limits, out)
    return out


def _ours(subject: Subject, scratch: Path, place: int) -> int:
    target = scratch / f"cache-{place}"
    for suffix in ("json", "npy"):
        (target / f"{subject.folder.name}.{suffix}").unlink(missing_ok=True)
    outcome = prepare_study(Task(subject.folder.name, subject.folder, None, target, subject.settings))
    if outcome.bad:
        raise RuntimeError(outcome.bad)
    return outcome.slices


def _usual(subject: Subject, place: int) -> int:  # noqa: ARG001
    size = subject.settings.size_px
    for header in subject.stack.headers:
        cv2.resize(pydicom.dcmread(header.file).pixel_array, (size, size))
    return len(subject.stack.headers)
