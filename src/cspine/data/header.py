"""One DICOM file's header: its place in the patient, how its pixels are stored, and whether they are all there."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from cspine.data.pixels import DECODE_ERRORS, Encoding, SliceError, measure

TAGS = [
    "ImageType", "Modality", "InstanceNumber", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "SliceThickness", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "RescaleIntercept", "RescaleSlope",
]  # fmt: skip


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
