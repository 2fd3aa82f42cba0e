"""The one-pass resampling against OpenCV, and where a rectangle reaches beyond the slice."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cspine.data.resample import resample

LOW, HIGH = -600.0, 1400.0


def sampled(pixels: np.ndarray, corner: tuple[int, int], sides: tuple[int, int], size: int) -> np.ndarray:
    out = np.empty((size, size), np.uint8)
    resample(pixels, corner, sides, (LOW, HIGH), out)
    return out


def by_opencv(pixels: np.ndarray, corner: tuple[int, int], sides: tuple[int, int], size: int) -> np.ndarray:
    """Clip, pad, resize, scale, each on its own."""
    field = np.full(sides, LOW, np.float32)
    for y in range(sides[0]):
        for x in range(sides[1]):
            row, column = y + corner[0], x + corner[1]
            if 0 <= row < pixels.shape[0] and 0 <= column < pixels.shape[1]:
                field[y, x] = np.clip(pixels[row, column], LOW, HIGH)
    mode = cv2.INTER_AREA if sides[0] > size else cv2.INTER_LINEAR
    return (cv2.resize(field, (size, size), interpolation=mode) - LOW) * 255 / (HIGH - LOW)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(-20, 20), st.integers(-20, 20)),
    st.integers(8, 60),
    st.integers(8, 40),
)
def test_it_is_what_opencv_gives(seed, corner, side, size):
    pixels = np.random.default_rng(seed).integers(-1024, 3000, (31, 37)).astype(np.int16)
    expected = by_opencv(pixels, corner, (side, side), size)
    # Half a grey level for the rounding, a hundredth for another order of summing in float32.
    assert np.abs(sampled(pixels, corner, (side, side), size) - expected).max() <= 0.51


@pytest.mark.parametrize(("hu", "grey"), [(-1024, 0), (-600, 0), (600, 153), (1400, 255), (4095, 255)])
@pytest.mark.parametrize("side", [9, 16, 33])
def test_an_even_slice_stays_even_and_the_window_ends_at_0_and_255(hu, grey, side):
    assert (sampled(np.full((40, 40), hu, np.int16), (2, 3), (side, side), 16) == grey).all()


def test_beyond_the_slice_is_the_low_end():
    pixels = np.full((10, 10), 1400, np.int16)
    assert (sampled(pixels, (-50, 0), (20, 20), 8) == 0).all()
    half = sampled(pixels, (-10, 0), (20, 20), 20)
    assert (half[:10] == 0).all()
    assert (half[10:, :10] == 255).all()
    assert (half[10:, 10:] == 0).all()


def test_an_oblong_rectangle_becomes_a_square():
    pixels = np.full((20, 40), 600, np.int16)
    pixels[:, 20:] = 1400
    grey = sampled(pixels, (0, 0), (20, 40), 10)
    assert (grey[:, :5] == 153).all()
    assert (grey[:, 5:] == 255).all()
