"""A folder of DICOM files to one CT volume in HU, cranial to caudal, with every file that was left out and why."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from cspine.data.geometry import Geometry, cranial_normal, number_files, order_slices
from cspine.data.pixels import DECODE_ERRORS, Encoding, SliceError, measure, read_hu
from cspine.errors import UserError

MIN_SLICES = 3
SAME_PLACE_MM = 0.01
TAGS = [
    "ImageType", "Modality", "InstanceNumber", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "SliceThickness", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "RescaleIntercept", "RescaleSlope",
]  # fmt: skip


class StudyError(UserError):
    """A folder that gives no volume; `skipped` lists its files with the reason for each."""

    def __init__(self, folder: Path, reason: str, skipped: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(f"{folder}: {reason}")
        self.folder, self.reason, self.skipped = folder, reason, skipped

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions with arguments of their own cross process borders only so.
        return type(self), (self.folder, self.reason, self.skipped)


@dataclass(frozen=True)
class Header:
    """What one slice's header says of its place and its pixels."""

    file: Path
    instance_number: int | None
    position_mm: tuple[float, ...]
    orientation: tuple[float, ...]  # row direction, column direction
    pixel_spacing_mm: tuple[float, ...]  # y, x
    thickness_mm: float | None
    encoding: Encoding


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
            volume[index] = read_hu(header.file, header.encoding, fast)
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


def read_header(file: Path) -> Header:
    """One file's header, its pixel data measured but not decoded. Raises SliceError with the reason to skip it."""
    if not file.is_file():
        raise SliceError("not a file")
    try:
        with file.open("rb") as stream:
            dataset = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=TAGS)
            _refuse_other_images(dataset)
            encoding = _encoding(dataset)
            expected = encoding.rows * encoding.columns * encoding.bits_allocated // 8
            if encoding.syntax == DeflatedExplicitVRLittleEndian:
                _measure_deflated(file, expected)
                offset, fragments = None, 0
            else:
                offset, fragments = measure(stream, encoding.syntax, expected)
        return _header(file, dataset, Encoding(**{**vars(encoding), "offset": offset, "fragments": fragments}))
    except InvalidDicomError:
        raise SliceError("not a DICOM file") from None
    except DECODE_ERRORS as error:
        raise SliceError(f"unreadable header ({' '.join(str(error).split())[:200]})") from error


def _refuse_other_images(dataset: Any) -> None:
    """Scouts, other modalities, colour and several frames in a file are no slices of a CT stack."""
    if dataset.get("Modality", "CT") not in ("CT", "", None):
        raise SliceError(f"modality {dataset.Modality}, not CT")
    if "LOCALIZER" in (dataset.get("ImageType") or ()):
        raise SliceError("a localizer")
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise SliceError("several frames in one file")
    if int(dataset.get("SamplesPerPixel") or 1) > 1:
        raise SliceError("a colour image")
    for keyword in ("Rows", "Columns", "BitsAllocated"):
        if not dataset.get(keyword):
            raise SliceError("no pixel data" if "Rows" not in dataset else f"no {keyword} in the header")
    for keyword, count in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2)):
        if len(dataset.get(keyword) or ()) != count:
            raise SliceError(f"no {keyword} in the header")


def _encoding(dataset: Any) -> Encoding:
    bits = int(dataset.BitsAllocated)
    stored = int(dataset.get("BitsStored") or bits)
    padding = dataset.get("PixelPaddingValue")
    limit = dataset.get("PixelPaddingRangeLimit")
    return Encoding(
        syntax=dataset.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian),
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        bits_allocated=bits,
        bits_stored=stored,
        high_bit=int(dataset.get("HighBit") or stored - 1),
        signed=dataset.get("PixelRepresentation") == 1,
        inverted=dataset.get("PhotometricInterpretation") == "MONOCHROME1",
        slope=float(dataset.get("RescaleSlope") or 1),
        intercept=float(dataset.get("RescaleIntercept") or 0),
        padding=None if padding is None else (int(padding), int(padding if limit is None else limit)),
    )


def _header(file: Path, dataset: Any, encoding: Encoding) -> Header:
    numbers = [*dataset.ImagePositionPatient, *dataset.ImageOrientationPatient, *dataset.PixelSpacing]
    values = [float(number) for number in numbers]
    # Written with six decimals, orientations of one series can differ in the last; rounding keeps them together.
    orientation = np.round(values[3:9], 4) + 0.0
    if not np.isfinite(values).all() or min(values[9:]) <= 0 or not np.cross(orientation[:3], orientation[3:]).any():
        raise SliceError("an impossible position, orientation or pixel spacing in the header")
    thickness = dataset.get("SliceThickness")
    instance = dataset.get("InstanceNumber")
    return Header(
        file=file,
        instance_number=None if instance is None else int(instance),
        position_mm=tuple(values[:3]),
        orientation=tuple(values[3:9]),
        pixel_spacing_mm=tuple(values[9:]),
        thickness_mm=None if thickness is None else float(thickness),
        encoding=encoding,
    )


def _measure_deflated(file: Path, expected_bytes: int) -> None:
    present = len(pydicom.dcmread(file).get("PixelData", b""))
    if present < expected_bytes:
        raise SliceError(f"truncated pixel data ({present} of {expected_bytes} bytes)")


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
