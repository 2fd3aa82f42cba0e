"""Damage to the bytes of a DICOM file, of named kinds, each following from its random generator."""

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.uid import DeflatedExplicitVRLittleEndian

UNDEFINED = 0xFFFFFFFF
LONG_VRS = ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV")
# Values of two bytes that the mutation `size` writes.
SIZES = (0, 1, 7, 31, 33, 48, 64, 511, 4096, 65535)


@dataclass(frozen=True)
class Place:
    """Where an element lies in a file: its tag, the field of its length, its value."""

    keyword: str
    tag_at: int
    length_at: int
    length_bytes: int
    value_at: int
    length: int


@dataclass(frozen=True)
class Layout:
    """The elements of an intact file before its pixels, the PixelData element, and its (offset, length) of pixel bytes.

    Empty for a deflated file, whose elements cannot be reached.
    """

    order: str  # of struct: < or >
    elements: tuple[Place, ...] = ()
    pixels: Place | None = None
    fragments: tuple[tuple[int, int], ...] = field(default=())


def find_layout(data: bytes) -> Layout:
    """Where the elements of an intact file lie."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    syntax = dataset.file_meta.get("TransferSyntaxUID", pydicom.uid.ImplicitVRLittleEndian)
    order = "<" if syntax.is_little_endian else ">"
    if syntax == DeflatedExplicitVRLittleEndian:
        return Layout(order)
    places = []
    for tag in list(dataset.keys()):
        raw = dataset.get_item(tag)
        if not isinstance(raw, RawDataElement):
            continue
        long_form = not raw.is_implicit_VR and raw.VR in LONG_VRS
        length_bytes = 4 if long_form or raw.is_implicit_VR else 2
        tag_at = raw.value_tell - (12 if long_form else 8)
        places.append(
            Place(pydicom.datadict.keyword_for_tag(tag), tag_at, raw.value_tell - length_bytes, length_bytes,
                  raw.value_tell, raw.length)
        )  # fmt: skip
    pixels = next(place for place in places if place.keyword == "PixelData")
    before = tuple(place for place in places if place.tag_at < pixels.tag_at)
    fragments = _fragments(data, pixels.value_at) if syntax.is_encapsulated else ((pixels.value_at, pixels.length),)
    return Layout(order, before, pixels, fragments)


def _fragments(data: bytes, place: int) -> tuple[tuple[int, int], ...]:
    """(offset, length) of each item's content after the offset table."""
    items = []
    while data[place : place + 4] == b"\xfe\xff\x00\xe0":
        length = int.from_bytes(data[place + 4 : place + 8], "little")
        items.append((place + 8, length))
        place += 8 + length
    return tuple(items[1:])


Mutation = Callable[[bytearray, Layout, np.random.Generator], bytes | None]


def nothing(data: bytearray, _layout: Layout, _random: np.random.Generator) -> bytes:
    return bytes(data)


def _flip(data: bytearray, first: int, end: int, count: int, random: np.random.Generator) -> bytes:
    for at in random.integers(first, end, count):
        data[at] ^= 1 << int(random.integers(8))
    return bytes(data)


def flip_anywhere(data: bytearray, _layout: Layout, random: np.random.Generator) -> bytes:
    return _flip(data, 0, len(data), 1, random)


def flip_header(data: bytearray, layout: Layout, random: np.random.Generator) -> bytes | None:
    return _flip(data, 128, layout.pixels.value_at, 1, random) if layout.pixels else None


def flip_pixels(data: bytearray, layout: Layout, random: np.random.Generator) -> bytes | None:
    if not layout.pixels:
        return None
    start, length = layout.fragments[random.integers(len(layout.fragments))]
    return _flip(data, start, start + length, int(random.integers(1, 9)), random)


def truncate(data: bytearray, _layout: Layout, random: np.random.Generator) -> bytes:
    return bytes(data[: random.integers(len(data))])


def truncate_in_pixels(data: bytearray, layout: Layout, random: np.random.Generator) -> bytes | None:
    if not layout.pixels:
        return None
    start, length = layout.fragments[-1]
    return bytes(data[: random.integers(start, start + length)])


def element_length(data: bytearray, layout: Layout, random: np.random.Generator) -> bytes | None:
    if not layout.elements:
        return None
    place = layout.elements[random.integers(len(layout.elements))]
    return _set_length(data, place.length_at, place.length_bytes, place.length, layout.order, random)


def pixel_length(data: bytearray, layout: Layout, random: np.random.Generator) -> bytes | None:
    place = layout.pixels
    return place and _set_length(data, place.length_at, place.length_bytes, place.length, layout.order, random)


def fragment_length(data: bytearray, layout: Layout, random: np.random.Generator) -> bytes | None:
    if not layout.pixels or layout.pixels.length != UNDEFINED:
        return None
    start, length = layout.fragments[random.integers(len(layout.fragments))]
    return _set_length(data, start - 4, 4, length, "<", random)


def _set_length(data: bytearray, at: int, size: int, length: int, order: str, random: np.random.Generator) -> bytes:
    most = (1 << (8 * size)) - 1
    choices = (0, length // 2, length - 2, length + 2, length + 8, length * 2, most, int(random.integers(most)))
    value = min(max(0, choices[random.integers(len(choices))]), most)
    data[at : at + size] = value.to_bytes(size, "little" if order == "<" else "big")
    return bytes(data)


def size(data: bytearray, layout: Layout, random: np.random.Generator) -> bytes | None:
    """Other Rows, Columns, bits or signs than the pixels have."""
    keywords = ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel")
    places = [place for place in layout.elements if place.keyword in keywords and place.length == 2]
    if not places:
        return None
    place = places[random.integers(len(places))]
    values = SIZES if place.keyword in ("Rows", "Columns") else (0, 1, 3, 7, 8, 11, 12, 15, 16, 32, 64)
    struct.pack_into(layout.order + "H", data, place.value_at, values[random.integers(len(values))])
    return bytes(data)


def number(data: bytearray, layout: Layout, random: np.random.Generator) -> bytes | None:
    """Nonsense in the decimal texts of the header: positions, spacing, slope."""
    keywords = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept")
    places = [place for place in layout.elements if place.keyword in keywords and place.length]
    if not places:
        return None
    place = places[random.integers(len(places))]
    texts = (b"nan", b"inf", b"-1e308", b"1e400", b"0", b"\\\\", b"x", b"-", b"", b"1\\2", b"\x00", b"9" * 40)
    text = texts[random.integers(len(texts))][: place.length].ljust(place.length)
    data[place.value_at : place.value_at + place.length] = text
    return bytes(data)


def swap_tags(data: bytearray, layout: Layout, random: np.random.Generator) -> bytes | None:
    """Two elements with each other's tag; one of them may be the pixels."""
    if not layout.pixels:
        return None
    places = (*layout.elements, layout.pixels)
    one, two = (places[index].tag_at for index in random.choice(len(places), 2, replace=False))
    data[one : one + 4], data[two : two + 4] = data[two : two + 4], data[one : one + 4]
    return bytes(data)


def drop_element(data: bytearray, layout: Layout, random: np.random.Generator) -> bytes | None:
    if not layout.elements:
        return None
    place = layout.elements[random.integers(len(layout.elements))]
    del data[place.tag_at : place.value_at + place.length]
    return bytes(data)


def insert_bytes(data: bytearray, _layout: Layout, random: np.random.Generator) -> bytes:
    at = int(random.integers(len(data)))
    return bytes(data[:at]) + random.bytes(2 * int(random.integers(1, 9))) + bytes(data[at:])


def excise(data: bytearray, layout: Layout, random: np.random.Generator) -> bytes | None:
    """Pixel bytes taken out of the middle and every length put right, so that only the decoder can notice."""
    if not layout.pixels:
        return None
    start, length = layout.fragments[random.integers(len(layout.fragments))]
    count = 2 * int(random.integers(1, max(2, length // 4)))
    at = start + int(random.integers(0, max(1, length - count - 4)))
    del data[at : at + count]
    length_at = layout.pixels.length_at if layout.pixels.length != UNDEFINED else start - 4
    struct.pack_into(layout.order + "I", data, length_at, max(0, length - count))
    return bytes(data)


KINDS: dict[str, Mutation] = {
    function.__name__: function
    for function in (
        nothing, flip_anywhere, flip_header, flip_pixels, truncate, truncate_in_pixels, element_length, pixel_length,
        fragment_length, size, number, swap_tags, drop_element, insert_bytes, excise,
    )
}  # fmt: skip
