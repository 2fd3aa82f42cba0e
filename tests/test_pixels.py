"""Stored integers to Hounsfield units, against plain Python integers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRLittleEndian

from cspine.data.pixels import AIR_HU, MAX_HU, Encoding, to_hu


@st.composite
def encodings(draw):
    bits = draw(st.sampled_from([8, 16, 32]))
    stored = draw(st.integers(6, bits))
    signed = draw(st.booleans())
    padded = draw(st.booleans())
    low, high = (-(1 << stored - 1), (1 << stored - 1) - 1) if signed else (0, (1 << stored) - 1)
    return Encoding(
        syntax=ExplicitVRLittleEndian,
        rows=1,
        columns=1,
        bits_allocated=bits,
        bits_stored=stored,
        high_bit=draw(st.integers(stored - 1, bits - 1)),
        signed=signed,
        inverted=False,
        slope=draw(st.sampled_from([1.0, 1.0, 0.5, 2.0])),
        intercept=draw(st.sampled_from([-1024.0, 0.0, -1000.5, 40000.0, -32768.0])),
        padding=tuple(sorted(draw(st.tuples(st.integers(low, high), st.integers(low, high))))) if padded else None,
    )


def reference(pattern: int, encoding: Encoding) -> int:
    """HU of one pixel from the bits in the file."""
    value = pattern >> (encoding.high_bit + 1 - encoding.bits_stored) & (1 << encoding.bits_stored) - 1
    if encoding.signed and value >> encoding.bits_stored - 1:
        value -= 1 << encoding.bits_stored
    if encoding.padding and encoding.padding[0] <= value <= encoding.padding[1]:
        return AIR_HU
    hu = float(np.rint(np.float32(value) * np.float32(encoding.slope) + np.float32(encoding.intercept)))
    return int(min(max(hu, AIR_HU), MAX_HU))


@settings(deadline=None)  # the first of each kind is compiled
@given(encodings(), st.data())
def test_every_encoding_against_python_integers(encoding, data):
    low_bit = encoding.high_bit + 1 - encoding.bits_stored
    values = data.draw(st.lists(st.integers(0, (1 << encoding.bits_stored) - 1), min_size=1, max_size=20))
    # Above a signed number stands its sign; below it, whatever was left there.
    sign = encoding.bits_stored - 1
    fill = (1 << encoding.bits_allocated) - (1 << encoding.high_bit + 1)
    patterns = [v << low_bit | (fill if encoding.signed and v >> sign & 1 else 0) for v in values]
    kind = np.dtype(f"{'i' if encoding.signed else 'u'}{encoding.bits_allocated // 8}")
    stored = np.array(patterns, np.uint64).astype(kind)[None]
    encoding = Encoding(**{**vars(encoding), "padding": _shifted(encoding.padding, low_bit)})
    plain = Encoding(**{**vars(encoding), "padding": _shifted(encoding.padding, -low_bit)})
    assert to_hu(stored, encoding)[0].tolist() == [reference(pattern, plain) for pattern in patterns]


def _shifted(padding, bits):
    """Padding is declared as stored, low bits included."""
    return padding and tuple(value << bits if bits > 0 else value >> -bits for value in padding)


@pytest.mark.parametrize("kind", [np.int16, np.uint16])
def test_an_image_may_be_converted_in_its_own_memory(kind):
    encoding = Encoding(ExplicitVRLittleEndian, 1, 3, 16, 12, 11, kind is np.int16, False, 1.0, -1024.0, None)
    out = np.array([[0, 1064, 2047]], np.int16)
    to_hu(out.view(kind), encoding, out)
    assert out.tolist() == [[-1024, 40, 1023]]


def test_padding_of_an_inverted_image_is_known_by_its_stored_value_also_in_place():
    encoding = Encoding(ExplicitVRLittleEndian, 1, 4, 16, 12, 11, False, True, 1.0, -1024.0, (0, 0))
    out = np.array([[0, 1024, 24, 1064]], np.int16)  # padding, water, air, tissue
    to_hu(out.view(np.uint16), encoding, out)
    assert out.tolist() == [[-1024, 0, -1000, 40]]


def test_padding_has_no_say_in_how_an_inverted_image_is_read():
    encoding = Encoding(ExplicitVRLittleEndian, 1, 6, 16, 16, 15, True, True, 1.0, 0.0, (-2000, -2000))
    stored = np.array([[-2000, -2000, -2000, -1000, 40, 100]], np.int16)
    assert to_hu(stored, encoding).tolist() == [[-1024, -1024, -1024, -1000, 40, 100]]
    assert to_hu(np.full((1, 6), -2000, np.int16), encoding).tolist() == [[-1024] * 6]
