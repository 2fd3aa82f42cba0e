"""The body is found without the table, whole with its airway, at any pixel spacing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_preprocess import phantom

from cspine.data.body import body_centre, body_mask


def test_body_centre_ignores_the_table() -> None:
    y, x = body_centre(phantom())
    assert (y, x) == (pytest.approx(60, abs=1.5), pytest.approx(70, abs=1.5))


def test_body_centre_of_nothing_is_the_middle() -> None:
    assert body_centre(np.full((3, 20, 30), -1024, np.int16)) == (9.5, 14.5)


def disc(spacing: tuple[float, float], centre_mm: tuple[float, float], radius_mm: float) -> np.ndarray:
    """bool (y, x) of 200 mm x 200 mm."""
    rows, columns = (round(200 / step) for step in spacing)
    y, x = (np.arange(rows) + 0.5) * spacing[0], (np.arange(columns) + 0.5) * spacing[1]
    return np.hypot(y[:, None] - centre_mm[0], x[None, :] - centre_mm[1]) < radius_mm


@settings(max_examples=30, deadline=None)
@given(
    spacing=st.tuples(st.floats(0.4, 1.5), st.floats(0.4, 1.5)),
    centre=st.tuples(st.floats(60, 110), st.floats(60, 140)),
    radius=st.floats(25, 50),
)
def test_the_body_is_filled_and_parted_from_a_table_that_it_touches(
    spacing: tuple[float, float], centre: tuple[float, float], radius: float
) -> None:
    body = disc(spacing, centre, radius)
    pixels = np.where(body, 40, -1000).astype(np.int16)
    pixels[disc(spacing, centre, 0.4 * radius)] = -950  # the airway
    shell = round((centre[0] + radius) / spacing[0])
    pixels[shell - 1 : shell + max(1, round(2 / spacing[0])), :] = 100  # 2 mm thick, the whole width
    found = body_mask(pixels, -300, spacing)
    # What differs is a few mm of the table where it touches.
    assert np.count_nonzero(found != body) * spacing[0] * spacing[1] < 0.1 * np.pi * radius**2
    assert found[body & ~disc(spacing, centre, radius - 3)].mean() > 0.9
    assert found[disc(spacing, centre, 0.5 * radius)].all()
    assert not found[:, : round(5 / spacing[1])].any()


def test_a_pillow_that_touches_the_body_is_no_body() -> None:
    spacing = (1.0, 1.0)
    body, pillow = disc(spacing, (80, 100), 40), disc(spacing, (137, 100), 15)
    pixels = np.where(body | pillow, 40, -1000).astype(np.int16)
    pixels[118:124, 99:101] = 40  # a fold of cloth between them
    found = body_mask(pixels, -300, spacing)
    assert found[body].mean() > 0.99
    assert not found[pillow].any()


def test_a_body_cut_by_the_border_reaches_it() -> None:
    pixels = np.full((80, 80), -1000, np.int16)
    pixels[30:, :50] = 40
    assert np.array_equal(body_mask(pixels, -300, (1.0, 1.0)), pixels > -300)


def test_without_anything_thick_there_is_no_body() -> None:
    pixels = np.full((80, 80), -1000, np.int16)
    pixels[40:42] = 100
    assert not body_mask(pixels, -300, (1.0, 1.0)).any()
    assert not body_mask(np.full((80, 80), -1000, np.int16), -300, (1.0, 1.0)).any()
