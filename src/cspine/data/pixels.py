"""The pixels of one DICOM slice as Hounsfield units: found, measured for completeness, decoded, rescaled."""

import logging
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pydicom
from numba import njit
from pydicom.encaps import get_frame
from pydicom.pixels.utils import get_j2k_parameters
from pydicom.uid import JPEG2000, UID, JPEG2000Lossless, JPEGLossless, JPEGLosslessSV1

from cspine.data.codestream import HEAD_BYTES, frame_size

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


def measure(stream: BinaryIO, syntax: UID, expected_bytes: int, size: tuple[int, int]) -> tuple[int | None, int]:
    """Check that the PixelData element at the stream's place is whole; its offset if native, and its fragments.

    Raises SliceError where it is absent, shorter than the header promises, or of another size (rows, columns). Nothing
    is decoded.
    """
    order = "little" if syntax.is_little_endian else "big"
    start = stream.read(12)
    if len(start) < 12 or _tag(start, order) != PIXEL_DATA:
        raise SliceError("no pixel data")
    long_form = not syntax.is_implicit_VR
    if long_form and start[4:6] not in (b"OW", b"OB", b"UN"):
        raise SliceError("pixel data that is not of type OW or OB")
    length = int.from_bytes(start[8:12] if long_form else start[4:8], order)  # type: ignore[arg-type]
    offset = stream.tell() - (0 if long_form else 4)
    if syntax.is_encapsulated:
        return None, _measure_fragments(stream, syntax, size)
    if length == UNDEFINED_LENGTH:
        raise SliceError("compressed pixel data in a file that calls it uncompressed")
    present = min(length, stream.seek(0, 2) - offset)
    if present < expected_bytes:
        raise SliceError(f"truncated pixel data ({present} of {expected_bytes} bytes)")
    return offset, 0


def _measure_fragments(stream: BinaryIO, syntax: UID, size: tuple[int, int]) -> int:
    """Walk over the items of compressed pixel data; how many there are beside the offset table."""
    place = stream.tell()
    end = stream.seek(0, 2)
    fragments, last = -1, b""
    while place + 8 <= end:
        stream.seek(place)
        head = stream.read(8)
        length = int.from_bytes(head[4:], "little")
        if _tag(head, "little") != ITEM:
            break
        if fragments == 0:
            _require_size(stream.read(min(length, HEAD_BYTES)), size)
        place += 8 + length
        if place > end:
            raise SliceError(f"truncated pixel data ({place - end} bytes of the last fragment are missing)")
        fragments += 1
        stream.seek(max(place - 16, place - length))
        last = stream.read(place - stream.tell())
    if fragments < 1:
        raise SliceError("no pixel data")
    if syntax in JPEG_FAMILY and not last.rstrip(b"\0\xff").endswith(b"\xff\xd9"):
        raise SliceError("truncated pixel data (the compressed image has no end marker)")
    return fragments


def _require_size(head: bytes, size: tuple[int, int]) -> None:
    found = frame_size(head)
    if found is not None and found != size:
        raise SliceError(f"another size in the compressed image than in the header ({found}, not {size})")


def _tag(data: bytes, order: Any) -> tuple[int, int]:
    return int.from_bytes(data[:2], order), int.from_bytes(data[2:4], order)


def read_hu(file: Path, encoding: Encoding, fast: bool = True, out: np.ndarray | None = None) -> np.ndarray:
    """One slice as int16 HU (rows, columns) in [-1024, 4095]; padding is air. Raises SliceError if it does not decode.

    `fast` allows dicomsdl, which is quicker for lossless JPEG but can end the process on damaged data. `out`, int16
    (rows, columns) and contiguous, receives the HU.
    """
    if out is None:
        out = np.empty((encoding.rows, encoding.columns), np.int16)
    if encoding.offset is not None and encoding.bits_allocated == 16:
        stored = _read_native(file, encoding, out)
    else:
        stored = _decode(file, encoding, fast)
        if stored.shape != out.shape:
            raise SliceError(f"decodes to {stored.shape}, not {encoding.rows} x {encoding.columns}")
        if encoding.syntax.is_encapsulated:
            _refuse_noise(stored, encoding)
    to_hu(stored, encoding, out)
    return out


def _read_native(file: Path, encoding: Encoding, out: np.ndarray) -> np.ndarray:
    """Stored 16-bit integers in the memory of `out`: the length is checked, so plain bytes need no library."""
    assert encoding.offset is not None
    stored = out if encoding.signed else out.view(np.uint16)
    with file.open("rb", buffering=0) as stream:
        stream.seek(encoding.offset)
        if stream.readinto(stored.data.cast("B")) != stored.nbytes:
            raise SliceError("changed while it was read: its pixel data is shorter than a moment ago")
    if not encoding.syntax.is_little_endian:
        stored.byteswap(inplace=True)
    return stored


def _decode(file: Path, encoding: Encoding, fast: bool) -> np.ndarray:
    if fast and encoding.syntax in JPEG_LOSSLESS and encoding.fragments == 1 and has_dicomsdl():
        try:
            return dicomsdl.open(str(file)).pixelData(storedvalue=True)
        except Exception:  # DicomException, struct.error and others, without a common base
            logging.getLogger(__name__).info("%s: dicomsdl refused it, trying pydicom", file)
    try:
        dataset = pydicom.dcmread(file)
        stored = dataset.pixel_array
        unsigned_jpeg2000 = encoding.syntax in (JPEG2000, JPEG2000Lossless) and not encoding.signed
        if unsigned_jpeg2000 and get_j2k_parameters(get_frame(dataset.PixelData, 0, number_of_frames=1))["is_signed"]:
            # Some headers call signed JPEG 2000 data unsigned; the code stream knows.
            stored = stored.view(stored.dtype.str.replace("u", "i"))
        return stored
    except Exception as error:  # pydicom's plugins have no common base, and one slice must not cost a study
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


def to_hu(stored: np.ndarray, encoding: Encoding, out: np.ndarray | None = None) -> np.ndarray:
    """Stored integers to int16 HU, clipped to [-1024, 4095]; padding becomes air. `out` may be the same memory.

    The bits beside the stored ones are dropped (old scanners draw overlays there) and the sign is extended.
    """
    if out is None:
        out = np.empty(stored.shape, np.int16)
    low_bit, bits, shift = _constants(stored.dtype, encoding)
    if low_bit:
        stored = stored >> low_bit
    flat = np.ascontiguousarray(stored).reshape(-1), out.reshape(-1)
    if encoding.inverted:
        _monochrome1_to_hu(stored, bits, encoding, out)
    elif shift is not None and np.may_share_memory(stored, out):
        _shift_in_place(flat[0], bits, shift)
    elif shift is not None:
        _shift(*flat, bits, shift)
    else:
        _rescale(*flat, bits, np.float32(encoding.slope), np.float32(encoding.intercept))
    return out


@lru_cache(maxsize=16)
def _constants(dtype: np.dtype, encoding: Encoding) -> tuple[int, tuple[Any, ...], tuple[Any, ...] | None]:
    """The lowest stored bit; mask, sign bit, first and last padding value; what `_shift` needs, None if it won't do."""
    kind, width = dtype.type, dtype.itemsize * 8
    stored, low_bit = encoding.bits_stored, encoding.high_bit + 1 - encoding.bits_stored
    if not 0 < stored < width or low_bit < 0 or encoding.high_bit >= width:
        stored, low_bit = width, 0
    sign = 1 << (stored - 1) if dtype.kind == "i" else 0
    # Where the header declares no padding the range is empty, from 1 to 0.
    ends = sorted(np.array(encoding.padding).astype(kind) >> low_bit) if encoding.padding is not None else (1, 0)
    bits = (_wrap((1 << stored) - 1, kind), _wrap(sign, kind), kind(ends[0]), kind(ends[1]))
    limits, low, high = np.iinfo(kind), AIR_HU - encoding.intercept, MAX_HU - encoding.intercept
    # Padding becomes air, which then has to be a number that can be stored.
    reachable = low < limits.max and (encoding.padding is None or low >= limits.min)
    if encoding.slope != 1 or encoding.intercept != round(encoding.intercept) or not reachable or high <= limits.min:
        return low_bit, bits, None
    reach = kind(max(round(low), limits.min)), kind(min(round(high), limits.max))
    return low_bit, bits, (*reach, _wrap(round(encoding.intercept), np.int16))


def _wrap(value: int, kind: Any) -> Any:
    """The integer of this kind with the same low bits."""
    return np.array(value).astype(kind)[()]


@njit(cache=True)
def _shifted(raw, kind, bits, shift):
    """HU of one stored integer. Every step stays in its own kind, for which the compiler has vector instructions."""
    mask, sign, pad_low, pad_high = bits
    low, high, intercept = shift
    value = kind(kind(kind(raw & mask) ^ sign) - sign)
    value = low if value < low or (raw >= pad_low and raw <= pad_high) else value
    value = high if value > high else value
    return np.int16(np.int16(value) + intercept)


@njit(cache=True)
def _shift(stored, out, bits, shift):
    """The usual case, slope 1 and a whole intercept."""
    for i in range(stored.size):
        out[i] = _shifted(stored[i], stored.dtype.type, bits, shift)


@njit(cache=True)
def _shift_in_place(stored, bits, shift):
    """`_shift` where the HU are wanted in the memory of the stored 16-bit integers.

    Given one memory under two names, `_shift` runs without vector instructions and takes over ten times as long.
    """
    for i in range(stored.size):
        stored[i] = _shifted(stored[i], stored.dtype.type, bits, shift)


@njit(cache=True)
def _rescale(stored, out, bits, slope, intercept):
    """Any slope and intercept."""
    mask, sign, pad_low, pad_high = bits
    kind = stored.dtype.type
    low, high = np.float32(AIR_HU), np.float32(MAX_HU)
    for i in range(stored.size):
        raw = stored[i]
        hu = np.rint(np.float32(kind(kind(kind(raw & mask) ^ sign) - sign)) * slope + intercept)
        hu = low if hu < low or (raw >= pad_low and raw <= pad_high) else hu
        out[i] = np.int16(high if hu > high else hu)


def _monochrome1_to_hu(stored: np.ndarray, bits: tuple[Any, ...], encoding: Encoding, out: np.ndarray) -> None:
    mask, sign, pad_low, pad_high = bits
    # Before `out` is written, which may be the same memory.
    padded = (stored >= pad_low) & (stored <= pad_high)
    values = (((stored & mask) ^ sign) - sign).astype(np.int32)
    top = -1 if encoding.signed else (1 << encoding.bits_stored) - 1
    slope, intercept = np.float32(encoding.slope), np.float32(encoding.intercept)
    plain, inverted = (np.rint(reading * slope + intercept) for reading in (values, top - values))
    out[:] = np.clip(_more_plausible(plain, inverted, ~padded), AIR_HU, MAX_HU)
    out[padded] = AIR_HU


def _more_plausible(plain: np.ndarray, inverted: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Of two readings of a MONOCHROME1 slice the one whose real pixels look like CT: in range, and air among them.

    By the standard MONOCHROME1 concerns the display only and HU stay as they are; writers exist that invert the
    stored values instead.
    """

    def score(hu: np.ndarray) -> int:
        return int(np.count_nonzero((hu >= -1100) & (hu <= MAX_HU)) + np.count_nonzero((hu >= -1100) & (hu <= -700)))

    return inverted if score(inverted[real]) > score(plain[real]) else plain
