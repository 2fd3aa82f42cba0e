"""A folder of DICOM files to one CT volume in HU, cranial to caudal, with every file that was left out and why."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cspine.data.geometry import Geometry, cranial_normal, number_files, order_slices
from cspine.data.header import Header, read_header
from cspine.data.pixels import SliceError, read_hu
from cspine.errors import UserError

MIN_SLICES = 3
SAME_PLACE_MM = 0.01


class StudyError(UserError):
    """A folder that gives no volume; `skipped` lists its files with the reason for each."""

    def __init__(self, folder: Path, reason: str, skipped: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(f"{folder}: {reason}")
        self.folder, self.reason, self.skipped = folder, reason, skipped

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions with arguments of their own cross process borders only so.
        return type(self), (self.folder, self.reason, self.skipped)


@dataclass(frozen=True, eq=False)
class Stack:
    """The usable slices of a folder in order, before any pixel is decoded."""

    headers: tuple[Header, ...]
    geometry: Geometry
    skipped: tuple[tuple[str, str], ...]


@dataclass(frozen=True, eq=False)
class Study:
    """A decoded study: int16 HU (z, y, x), its place in the patient, and (file name, reason) of what was left out."""

    volume: np.ndarray
    geometry: Geometry
    skipped: tuple[tuple[str, str], ...]


def load_study(folder: Path, fast: bool = True) -> Study:
    """Decode a study's folder. Raises StudyError where fewer than three usable slices remain.

    `fast=False` keeps dicomsdl out, which on damaged files can end the process.
    """
    stack = scan_study(folder)
    first = stack.headers[0].encoding
    volume = np.empty((len(stack.headers), first.rows, first.columns), np.int16)
    failed: dict[int, str] = {}
    for index, header in enumerate(stack.headers):
        try:
            read_hu(header.file, header.encoding, fast, out=volume[index])
        except SliceError as error:
            failed[index] = str(error)
    if not failed:
        return Study(volume, stack.geometry, stack.skipped)
    skipped = (*stack.skipped, *((stack.headers[index].file.name, reason) for index, reason in failed.items()))
    kept = [index for index in range(len(volume)) if index not in failed]
    _require_slices(folder, len(kept), skipped)
    geometry = _geometry([stack.headers[index] for index in kept], stack.geometry.file_numbers[kept])
    return Study(volume[kept], geometry, skipped)


def scan_study(folder: Path) -> Stack:
    """Read the headers of a folder, leave out what does not belong, and order the rest cranial to caudal."""
    if not folder.is_dir():
        raise StudyError(folder, "no such folder")
    headers, skipped = [], []
    for file in sorted(folder.iterdir(), key=lambda path: (len(path.name), path.name)):
        try:
            headers.append(read_header(file))
        except SliceError as error:
            skipped.append((file.name, str(error)))
    numbers = dict(
        zip(headers, number_files([h.file for h in headers], [h.instance_number for h in headers]), strict=True)
    )
    headers = _majority(headers, skipped)
    _require_slices(folder, len(headers), tuple(skipped))
    if abs(cranial_normal(headers[0].orientation[:3], headers[0].orientation[3:])[2]) < 0.7:
        raise StudyError(folder, "the slices are sagittal or coronal, not axial", tuple(skipped))
    headers = _distinct(headers, skipped)
    _require_slices(folder, len(headers), tuple(skipped))
    geometry = _geometry(headers, np.array([numbers[header] for header in headers]))
    return Stack(tuple(headers), geometry, tuple(skipped))


def _majority(headers: list[Header], skipped: list[tuple[str, str]]) -> list[Header]:
    """The slices of the most frequent size, then orientation, then pixel spacing; the others are listed."""
    rules = (
        ("size", lambda h: f"{h.encoding.rows} x {h.encoding.columns}"),
        ("orientation", lambda h: str(tuple(np.round(h.orientation, 3) + 0.0))),
        ("pixel spacing", lambda h: " x ".join(f"{value:.3f}" for value in h.pixel_spacing_mm)),
    )
    for what, key in rules:
        counts = Counter(key(header) for header in headers)
        if len(counts) > 1:
            usual = counts.most_common(1)[0][0]
            for header in headers:
                if key(header) != usual:
                    skipped.append((header.file.name, f"another {what} than most slices ({key(header)}, not {usual})"))
            headers = [header for header in headers if key(header) == usual]
    return headers


def _distinct(headers: list[Header], skipped: list[tuple[str, str]]) -> list[Header]:
    """The slices cranial to caudal, of those at one place the first."""
    frame = headers[0].orientation
    normal = cranial_normal(frame[:3], frame[3:])
    kept: list[Header] = []
    for index in order_slices([header.position_mm for header in headers], frame[:3], frame[3:]):
        header = headers[index]
        if kept and abs(np.subtract(header.position_mm, kept[-1].position_mm) @ normal) < SAME_PLACE_MM:
            skipped.append((header.file.name, f"duplicate position (same place as {kept[-1].file.name})"))
        else:
            kept.append(header)
    return kept


def _geometry(headers: list[Header], file_numbers: np.ndarray) -> Geometry:
    first = headers[0]
    return Geometry(
        file_numbers=file_numbers,
        positions_mm=np.array([header.position_mm for header in headers]),
        row_direction=np.array(first.orientation[:3]),
        column_direction=np.array(first.orientation[3:]),
        pixel_spacing_mm=(first.pixel_spacing_mm[0], first.pixel_spacing_mm[1]),
        thickness_mm=first.thickness_mm,
    )


def _require_slices(folder: Path, usable: int, skipped: tuple[tuple[str, str], ...]) -> None:
    if usable >= MIN_SLICES:
        return
    if not usable and not skipped:
        raise StudyError(folder, "the folder is empty")
    counts = Counter(reason.partition(" (")[0] for _, reason in skipped)
    causes = ", ".join(f"{count} x {reason}" for reason, count in counts.most_common(3)) or "no other files"
    raise StudyError(folder, f"{usable} usable slices, at least {MIN_SLICES} are needed; left out: {causes}", skipped)
