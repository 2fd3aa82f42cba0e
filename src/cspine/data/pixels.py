"""The pixels of one DICOM slice as Hounsfield units: found, measured for completeness, decoded, rescaled."""

import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pydicom
from pydicom.encaps import get_frame
from pydicom.pixels.utils import get_j2k_parameters
from pydicom.uid import JPEG2000, UID, JPEG2000Lossless, JPEGLossless, JPEGLosslessSV1

try:
    import dicomsdl
except ImportError:
    dicomsdl = None

AIR_HU = -1024
MAX_HU = 4095
PIXEL_DATA = (0x7FE0, 0x0010)
ITEM, SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
UNDEFINED_LENGTH = 0xFFFFFFFF
JPEG_LOSSLESS = (JPEGLossless, JPEGLosslessSV1)
# JPEG processes 1 to 14 and JPEG-LS, whose streams end with the marker FFD9.
JPEG_FAMILY = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 53, 55, 57, 70, 80, 81))
# What pydicom and its plugins raise on damaged data; there is no common base class.
DECODE_ERRORS = (
    RuntimeError, ValueError, AttributeError, KeyError, TypeError, IndexError, NotImplementedError, OSError, EOFError,
)  # fmt: skip


class SliceError(Exception):
    """Why a file cannot be used as a slice; the text goes into the study's `skipped` list."""


@dataclass(frozen=True)
class Encoding:
    """How a file stores its pixels, and what turns them into HU."""

    syntax: UID
    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    inverted: bool  # MONOCHROME1
    slope: float
    intercept: float
    padding: tuple[int, int] | None  # lowest and highest stored value that means "no pixel here"
    offset: int | None = None  # of native pixels in the file; None where pydicom has to find them
    fragments: int = 0  # of compressed pixels


def measure(stream: BinaryIO, syntax: UID, expected_bytes: int) -> tuple[int | None, int]:
    """Check that the PixelData element at the stream's place is whole; its offset if native, and its fragments.

    Raises SliceError where it is absent or shorter than the header promises. Nothing is decoded.
    """
    order = "little" if syntax.is_little_endian else "big"
    start = stream.read(12)
    if len(start) < 12 or _tag(start, order) != PIXEL_DATA:
        raise SliceError("no pixel data")
    long_form = not syntax.is_implicit_VR
    length = int.from_bytes(start[8:12] if long_form else start[4:8], order)  # type: ignore[arg-type]
    offset = stream.tell() - (0 if long_form else 4)
    if syntax.is_encapsulated:
        return None, _measure_fragments(stream, syntax)
    present = min(length, stream.seek(0, 2) - offset)
    if present < expected_bytes:
        raise SliceError(f"truncated pixel data ({present} of {expected_bytes} bytes)")
    return offset, 0


def _measure_fragments(stream: BinaryIO, syntax: UID) -> int:
    """Walk over the items of compressed pixel data; how many there are beside the offset table."""
    place = stream.tell()
    size = stream.seek(0, 2)
    fragments, last = -1, b""
    while place + 8 <= size:
        stream.seek(place)
        head = stream.read(8)
        length = int.from_bytes(head[4:], "little")
        if _tag(head, "little") != ITEM:
            break
        place += 8 + length
        if place > size:
            raise SliceError(f"truncated pixel data ({place - size} bytes of the last fragment are missing)")
        fragments += 1
        stream.seek(max(place - 16, place - length))
        last = stream.read(place - stream.tell())
    if fragments < 1:
        raise SliceError("no pixel data")
    if syntax in JPEG_FAMILY and not last.rstrip(b"\0\xff").endswith(b"\xff\xd9"):
        raise SliceError("truncated pixel data (the compressed image has no end marker)")
    return fragments


def _tag(data: bytes, order: Any) -> tuple[int, int]:
    return int.from_bytes(data[:2], order), int.from_bytes(data[2:4], order)


def read_hu(file: Path, encoding: Encoding, fast: bool = True) -> np.ndarray:
    """One slice as int16 HU (rows, columns) in [-1024, 4095]; padding is air. Raises SliceError if it does not decode.

    `fast` allows dicomsdl, which is quicker for lossless JPEG but can end the process on damaged data.
    """
    stored = _decode(file, encoding, fast)
    if stored.shape != (encoding.rows, encoding.columns):
        raise SliceError(f"decodes to {stored.shape}, not {encoding.rows} x {encoding.columns}")
    if encoding.syntax.is_encapsulated:
        _refuse_noise(stored, encoding)
    return to_hu(stored, encoding)


def _decode(file: Path, encoding: Encoding, fast: bool) -> np.ndarray:
    if encoding.offset is not None and encoding.bits_allocated == 16:
        # The length has been checked, so plain bytes need no library.
        kind = ("<" if encoding.syntax.is_little_endian else ">") + ("i2" if encoding.signed else "u2")
        values = np.fromfile(file, kind, encoding.rows * encoding.columns, offset=encoding.offset)
        return values.reshape(encoding.rows, encoding.columns)
    if fast and encoding.syntax in JPEG_LOSSLESS and encoding.fragments == 1 and has_dicomsdl():
        try:
            return dicomsdl.open(str(file)).pixelData(storedvalue=True)
        except RuntimeError:
            logging.getLogger(__name__).info("%s: dicomsdl refused it, trying pydicom", file)
    try:
        dataset = pydicom.dcmread(file)
        stored = dataset.pixel_array
        unsigned_jpeg2000 = encoding.syntax in (JPEG2000, JPEG2000Lossless) and not encoding.signed
        if unsigned_jpeg2000 and get_j2k_parameters(get_frame(dataset.PixelData, 0, number_of_frames=1))["is_signed"]:
            # Some headers call signed JPEG 2000 data unsigned; the code stream knows.
            stored = stored.view(stored.dtype.str.replace("u", "i"))
        return stored
    except DECODE_ERRORS as error:
        raise SliceError(f"does not decode ({' '.join(str(error).split())[:200]})") from error


def _refuse_noise(stored: np.ndarray, encoding: Encoding) -> None:
    """Damaged compressed data can decode, without an error, to numbers that no CT holds."""
    hu = stored[::4, ::4] * np.float32(encoding.slope) + np.float32(encoding.intercept)
    # The extremes themselves may be padding that the header does not declare.
    wild = ((hu < -4096) & (hu > hu.min())) | ((hu > 20000) & (hu < hu.max()))
    if wild.mean() > 0.05:
        raise SliceError(f"decodes to noise ({wild.mean():.0%} of its values are far outside the range of CT)")


@cache
def has_dicomsdl() -> bool:
    """Whether dicomsdl is there; says once what its absence costs."""
    if dicomsdl is None:
        logging.getLogger(__name__).warning("dicomsdl is not installed: lossless JPEG decodes by pydicom, half as fast")
    return dicomsdl is not None


def to_hu(stored: np.ndarray, encoding: Encoding) -> np.ndarray:
    """Stored integers to int16 HU, clipped to [-1024, 4095]; padding becomes air."""
    padded = None
    if encoding.padding is not None:
        low, high = (np.array(value).astype(stored.dtype) for value in encoding.padding)
        padded = (stored >= min(low, high)) & (stored <= max(low, high))
    values = _sign_and_mask(stored, encoding)
    if encoding.inverted:
        readings = _rescale(values, encoding), _rescale(_invert(values, encoding), encoding)
        hu = np.clip(_more_plausible(*readings), AIR_HU, MAX_HU).astype(np.int16)
    else:
        hu = _rescale_and_clip(values, encoding)
    if padded is not None:
        hu[padded] = AIR_HU
    return hu


def _sign_and_mask(stored: np.ndarray, encoding: Encoding) -> np.ndarray:
    """Drop the bits beside the stored ones (old scanners draw overlays there) and extend the sign."""
    bits = stored.dtype.itemsize * 8
    above = bits - 1 - encoding.high_bit
    unused = bits - encoding.bits_stored
    if unused <= 0 or above < 0 or above > unused:
        return stored
    return np.right_shift(np.left_shift(stored, above), unused)


def _rescale_and_clip(values: np.ndarray, encoding: Encoding) -> np.ndarray:
    low, high = AIR_HU - int(encoding.intercept), MAX_HU - int(encoding.intercept)
    limits = np.iinfo(values.dtype)
    if encoding.slope != 1 or encoding.intercept != int(encoding.intercept) or not 0 <= high <= 32767 or low < -32768:
        return np.clip(_rescale(values, encoding), AIR_HU, MAX_HU).astype(np.int16)
    # The usual case stays in 16 bits, four times as fast: clipped first, the sum cannot overflow.
    hu = np.clip(values, max(low, limits.min), min(high, limits.max)).astype(np.int16)
    hu += np.int16(encoding.intercept)
    return hu


def _rescale(values: np.ndarray, encoding: Encoding) -> np.ndarray:
    if encoding.slope == 1 and encoding.intercept == int(encoding.intercept):
        return np.add(values, int(encoding.intercept), dtype=np.int32)
    return np.rint(values * np.float32(encoding.slope) + np.float32(encoding.intercept))


def _invert(values: np.ndarray, encoding: Encoding) -> np.ndarray:
    return (-1 if encoding.signed else (1 << encoding.bits_stored) - 1) - values.astype(np.int32)


def _more_plausible(plain: np.ndarray, inverted: np.ndarray) -> np.ndarray:
    """Of two readings of a MONOCHROME1 slice the one that looks like CT: values in range, and air among them.

    By the standard MONOCHROME1 concerns the display only and HU stay as they are; writers exist that invert the
    stored values instead.
    """

    def score(hu: np.ndarray) -> float:
        return float(np.mean((hu >= -1100) & (hu <= MAX_HU)) + np.mean((hu >= -1100) & (hu <= -700)))

    return inverted if score(inverted) > score(plain) else plain
