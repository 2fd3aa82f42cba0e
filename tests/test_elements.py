"""The quick look at a header says what pydicom says, or leaves the file to it."""

import io

import numpy as np
import pydicom
import pytest
from conftest import slice_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from cspine.data.elements import KEYWORDS, plain_elements

HU = np.arange(64, dtype=np.int16).reshape(8, 8)


def content(dataset, syntax=ExplicitVRLittleEndian) -> bytes:
    buffer = io.BytesIO()
    dataset.file_meta.TransferSyntaxUID = syntax
    little = syntax.is_little_endian
    pydicom.dcmwrite(buffer, dataset, implicit_vr=syntax.is_implicit_VR, little_endian=little)
    return buffer.getvalue()


def by_pydicom(data: bytes) -> dict:
    dataset = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True, specific_tags=list(KEYWORDS))
    values = {keyword: dataset.get(keyword) for keyword in KEYWORDS if dataset.get(keyword) is not None}
    return {keyword: tuple(v) if isinstance(v, MultiValue) else v for keyword, v in values.items()}


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@settings(max_examples=40, deadline=None)
@given(
    padding=st.one_of(st.none(), st.integers(-32768, 32767)),
    signed=st.booleans(),
    position=st.lists(st.floats(-999, 999).map(lambda v: round(v, 4)), min_size=3, max_size=3),
    comment=st.text("ab c", max_size=30),
)
def test_values_and_place_are_those_of_pydicom(syntax, padding, signed, position, comment):
    dataset = slice_dataset(HU, 5, 7, PixelRepresentation=int(signed), ImagePositionPatient=position)
    dataset.ImageType, dataset.SeriesDescription = ["ORIGINAL", "PRIMARY"], comment
    if padding is not None:
        dataset.add_new("PixelPaddingValue", "SS" if signed else "US", padding if signed else padding % 65536)
    data = content(dataset, syntax)
    plain = plain_elements(data)
    assert plain is not None
    assert plain.syntax == syntax
    assert plain.values == by_pydicom(data)
    assert data[plain.pixels_at : plain.pixels_at + 4] == b"\xe0\x7f\x10\0"


def test_compressed_pixels_have_a_plain_header():
    dataset = slice_dataset(HU, 5, 7)
    dataset.compress(RLELossless)
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    plain = plain_elements(buffer.getvalue())
    assert plain is not None
    assert plain.syntax == RLELossless
    assert plain.values["Rows"] == 8


def with_sequence(undefined: bool) -> Dataset:
    dataset, item = slice_dataset(HU, 5, 7), Dataset()
    item.Modality = "MR"  # of another image, as elements inside a sequence are
    dataset.ReferencedStudySequence = Sequence([item])
    dataset["ReferencedStudySequence"].is_undefined_length = undefined
    return dataset


def test_a_sequence_of_known_length_is_passed_over():
    plain = plain_elements(content(with_sequence(undefined=False)))
    assert plain is not None
    assert plain.values["Modality"] == "CT"


NOT_PLAIN = {
    "a sequence of unknown length": content(with_sequence(undefined=True)),
    "big endian": content(slice_dataset(HU.astype(">i2"), 5, 7), ExplicitVRBigEndian),
    "deflated": content(slice_dataset(HU, 5, 7), DeflatedExplicitVRLittleEndian),
    "no preamble": content(slice_dataset(HU, 5, 7))[132:],
    "no pixels": content(slice_dataset(HU, 5, 7, PixelData=None)),
    "a spacing of one number": content(slice_dataset(HU, 5, 7, PixelSpacing="0.5")),
    "nothing": b"",
}


WHOLE = content(slice_dataset(HU, 5, 7))


@pytest.mark.parametrize("kind", NOT_PLAIN)
def test_what_is_not_plain_is_left_to_pydicom(kind):
    assert plain_elements(NOT_PLAIN[kind]) is None


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_headers_never_crash_and_never_run_past_the_end(data):
    place = data.draw(st.integers(132, len(WHOLE) - 1))
    damaged = bytearray(WHOLE[: data.draw(st.integers(place, len(WHOLE)))])
    if place < len(damaged):
        damaged[place] = data.draw(st.integers(0, 255))
    plain = plain_elements(bytes(damaged))
    assert plain is None or plain.pixels_at <= len(damaged)
