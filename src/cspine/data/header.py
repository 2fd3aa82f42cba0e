"""One DICOM file's header: its place in the patient, how its pixels are stored, and whether they are all there."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from cspine.data.elements import HEAD_BYTES, KEYWORDS, plain_elements
from cspine.data.pixels import Encoding, SliceError, measure

POSITION = (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2))
# Directions are written with few decimals.
SKEW = 0.01


@dataclass(frozen=True)
class Header:
    """What one slice's header says of its place and its pixels."""

    file: Path
    series_uid: str  # empty where the header has none
    instance_number: int | None
    position_mm: tuple[float, ...]
    orientation: tuple[float, ...]  # row direction, column direction
    pixel_spacing_mm: tuple[float, ...]  # y, x
    thickness_mm: float | None
    encoding: Encoding


def read_header(file: Path) -> Header:
    """One file's header, its pixel data measured but not decoded. Raises SliceError with the reason to skip it."""
    try:
        stream = file.open("rb", buffering=0)
    except IsADirectoryError:
        raise SliceError("not a file") from None
    except OSError as error:
        raise SliceError(f"cannot be opened ({error.strerror})") from error
    try:
        with stream:
            plain = plain_elements(stream.read(HEAD_BYTES))
            if plain is None:
                return _read_by_pydicom(file)
            stream.seek(plain.pixels_at)
            return _header(file, plain.values, plain.syntax, stream)
    except InvalidDicomError:
        raise SliceError("not a DICOM file") from None
    except SliceError:
        raise
    except Exception as error:  # zlib.error, struct.error, OverflowError, pydicom's own: no common base
        raise SliceError(f"unreadable header ({' '.join(str(error).split())[:200]})") from error


def _read_by_pydicom(file: Path) -> Header:
    with file.open("rb") as stream:
        dataset = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=list(KEYWORDS))
        values = {keyword: dataset.get(keyword) for keyword in KEYWORDS}
        # Without one, pydicom finds out by itself whether types are written.
        guessed = ImplicitVRLittleEndian if dataset.original_encoding[0] else ExplicitVRLittleEndian
        syntax = dataset.file_meta.get("TransferSyntaxUID", guessed)
        values = {keyword: value for keyword, value in values.items() if value is not None}
        return _header(file, values, syntax, stream)


def _header(file: Path, values: dict[str, Any], syntax: UID, stream: BinaryIO | Any) -> Header:
    """The header from its values; `stream` stands at the PixelData element."""
    _refuse_other_images(values)
    expected = values["Rows"] * values["Columns"] * values["BitsAllocated"] // 8
    if syntax == DeflatedExplicitVRLittleEndian:
        _measure_deflated(file, expected)
        offset, fragments = None, 0
    else:
        offset, fragments = measure(stream, syntax, expected, (values["Rows"], values["Columns"]))
    position = [float(number) for keyword, _ in POSITION for number in values[keyword]]
    _refuse_impossible(position)
    thickness, instance = values.get("SliceThickness"), values.get("InstanceNumber")
    return Header(
        file=file,
        series_uid=str(values.get("SeriesInstanceUID", "")),
        instance_number=None if instance is None else int(instance),
        position_mm=tuple(position[:3]),
        orientation=tuple(position[3:9]),
        pixel_spacing_mm=tuple(position[9:]),
        thickness_mm=None if thickness is None else float(thickness),
        encoding=_encoding(values, syntax, offset, fragments),
    )


def _refuse_other_images(values: dict[str, Any]) -> None:
    """Scouts, other modalities, colour and several frames in a file are no slices of a CT stack."""
    if values.get("Modality", "CT") not in ("CT", ""):
        raise SliceError(f"modality {values['Modality']}, not CT")
    if "LOCALIZER" in (values.get("ImageType") or ()):
        raise SliceError("a localizer")
    if int(values.get("NumberOfFrames") or 1) > 1:
        raise SliceError("several frames in one file")
    if int(values.get("SamplesPerPixel") or 1) > 1:
        raise SliceError("a colour image")
    for keyword in ("Rows", "Columns", "BitsAllocated"):
        if not values.get(keyword):
            raise SliceError("no pixel data" if "Rows" not in values else f"no {keyword} in the header")
    if min(values["Rows"], values["Columns"]) < 1:
        raise SliceError(f"an impossible size ({values['Rows']} x {values['Columns']})")
    for keyword, count in POSITION:
        if len(values.get(keyword) or ()) != count:
            raise SliceError(f"no {keyword} in the header")


def _refuse_impossible(position: list[float]) -> None:
    """Position (3), row and column direction (3 and 3), pixel spacing (2)."""
    if not all(map(math.isfinite, position)) or min(position[9:]) <= 0:
        raise SliceError("an impossible position, orientation or pixel spacing in the header")
    ax, ay, az, bx, by, bz = position[3:9]
    # Plain numbers, because NumPy takes longer over three of them than reading the header does.
    lengths = ax * ax + ay * ay + az * az - 1, bx * bx + by * by + bz * bz - 1
    if max(*map(abs, lengths), abs(ax * bx + ay * by + az * bz)) > SKEW:
        raise SliceError("row and column directions that are no perpendicular unit vectors")


def _encoding(values: dict[str, Any], syntax: UID, offset: int | None, fragments: int) -> Encoding:
    bits = int(values["BitsAllocated"])
    stored = int(values.get("BitsStored") or bits)
    padding = values.get("PixelPaddingValue")
    slope, intercept = float(values.get("RescaleSlope") or 1), float(values.get("RescaleIntercept") or 0)
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise SliceError(f"an impossible rescale slope or intercept ({slope}, {intercept})")
    return Encoding(
        syntax=syntax,
        rows=int(values["Rows"]),
        columns=int(values["Columns"]),
        bits_allocated=bits,
        bits_stored=stored,
        high_bit=int(values.get("HighBit") or stored - 1),
        signed=values.get("PixelRepresentation") == 1,
        inverted=values.get("PhotometricInterpretation") == "MONOCHROME1",
        slope=slope,
        intercept=intercept,
        padding=None if padding is None else (int(padding), int(values.get("PixelPaddingRangeLimit", padding))),
        offset=offset,
        fragments=fragments,
    )


def _measure_deflated(file: Path, expected_bytes: int) -> None:
    present = len(pydicom.dcmread(file).get("PixelData", b""))
    if present < expected_bytes:
        raise SliceError(f"truncated pixel data ({present} of {expected_bytes} bytes)")
