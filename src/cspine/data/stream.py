"""From a study's files to what the models see, slice by slice: of DICOM files the volume is never in memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cspine.config import Preprocess
from cspine.data.dicom import read_slice, scan_study
from cspine.data.geometry import Geometry
from cspine.data.nifti import load_nifti
from cspine.data.pixels import SliceError
from cspine.data.preprocess import Plan, cut_slice, plan_study, sample_indices
from cspine.data.study import Stack, StudyError, require_slices

Read = Callable[[int, np.ndarray], None]


@dataclass(frozen=True, eq=False)
class Prepared:
    """`volumes` are uint8 (z, windows, y, x), `plans` what they were cut by, one for each preprocessing."""

    volumes: dict[Preprocess, np.ndarray]
    plans: dict[Preprocess, Plan]
    geometry: Geometry
    slice_shape: tuple[int, int]  # rows, columns of the files
    skipped: tuple[tuple[str, str], ...]


def prepare_volumes(path: Path, preprocesses: Sequence[Preprocess], fast: bool = True) -> Prepared:
    """Decode a study once for several preprocessings. Raises StudyError where fewer than three slices are usable.

    The result is that of `preprocess` on the whole volume where every slice decodes; the sample that plans the crop is
    taken before it is known which do. `fast=False` keeps dicomsdl out, as in `load_study`.
    """
    stack = scan_study(path)
    read = _reader(path, stack, fast)
    volume, sample, failed = _read_sample(read, stack)
    if not sample:
        raise StudyError(path, "no slice of a sample over the whole stack decodes", _listed(stack, failed))
    plans = {settings: plan_study(volume, stack.geometry, settings) for settings in preprocesses}
    volumes = {
        settings: np.empty((stack.shape[0], len(settings.windows), settings.size_px, settings.size_px), np.uint8)
        for settings in preprocesses
    }
    kept: list[int] = []
    buffer = np.empty(stack.shape[1:], np.int16)
    for index in range(stack.shape[0]):
        if index in failed or (pixels := _pixels(index, sample, read, buffer, failed)) is None:
            continue
        for settings, plan in plans.items():
            cut_slice(pixels, plan, settings, volumes[settings][len(kept)])
        kept.append(index)
    skipped = _listed(stack, failed)
    require_slices(path, len(kept), skipped)
    volumes = {settings: made[: len(kept)] for settings, made in volumes.items()}
    return Prepared(volumes, plans, stack.geometry.take(kept), stack.shape[1:], skipped)


def _reader(path: Path, stack: Stack, fast: bool) -> Read:
    """A function that writes the HU of a slice into an array, and raises SliceError where it does not decode."""
    if stack.headers:
        return lambda index, out: read_slice(stack, index, fast, out)
    volume = load_nifti(path).volume
    return lambda index, out: np.copyto(out, volume[index])


def _read_sample(read: Read, stack: Stack) -> tuple[np.ndarray, dict[int, np.ndarray], dict[int, str]]:
    """The slices by which the study is planned, also by index, for they need no second decoding; and what failed."""
    indices = sample_indices(stack.shape[0])
    volume = np.empty((len(indices), *stack.shape[1:]), np.int16)
    sample: dict[int, np.ndarray] = {}
    failed: dict[int, str] = {}
    for index in indices:
        pixels = volume[len(sample)]
        try:
            read(index, pixels)
        except SliceError as error:
            failed[index] = str(error)
        else:
            sample[index] = pixels
    return volume[: len(sample)], sample, failed


def _pixels(
    index: int, sample: dict[int, np.ndarray], read: Read, buffer: np.ndarray, failed: dict[int, str]
) -> np.ndarray | None:
    if index in sample:
        return sample[index]
    try:
        read(index, buffer)
    except SliceError as error:
        failed[index] = str(error)
        return None
    return buffer


def _listed(stack: Stack, failed: dict[int, str]) -> tuple[tuple[str, str], ...]:
    return (*stack.skipped, *((stack.slice_name(index), failed[index]) for index in sorted(failed)))
