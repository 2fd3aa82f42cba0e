"""The window of a whole stack: about the levels where they are known, about the stack where not, the same in mm."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_volumes import STILL

from cspine.config import Config, Preprocess, Volume
from cspine.data.augment3d import VolumeAugmenter
from cspine.data.level_crops import LevelPlace
from cspine.data.stacks import stack_view, stack_window

GRID = Volume(voxel_mm=2.0, window_px=(32, 16, 16))
CONFIG = Config(name="n", task="t", preprocess=Preprocess(field_mm=32.0, size_px=32), volume=GRID)


def place(top_mm: float, bottom_mm: float) -> LevelPlace:
    return LevelPlace(
        np.zeros((1, 1, 1), np.uint8), np.array([bottom_mm]), (0.0, 0.0), 1.0, (0.0, 0.0), top_mm, bottom_mm, 1.0
    )


def test_the_middle_is_that_of_the_levels_else_of_the_stack() -> None:
    z_mm = np.linspace(200, 0, 101)
    places = [None, place(160, 145), place(140, 120), None, None, None, None]
    assert stack_view(z_mm, None, CONFIG).middle_mm == 100
    assert stack_view(z_mm, None, CONFIG).judged.all()
    assert stack_view(z_mm, places, CONFIG).middle_mm == 140
    assert stack_view(z_mm, places, CONFIG).judged.tolist() == [False, True, True, *[False] * 4]
    nothing = stack_view(z_mm, [None] * 7, CONFIG)
    assert nothing.middle_mm == 100
    assert not nothing.judged.any()


def test_a_level_outside_of_the_window_is_not_judged() -> None:
    # The window spans 64 mm: from 132 to 68.
    places = [place(150, 140), place(138, 124), place(120, 80), None, None, None, place(60, 50)]
    view = stack_view(np.linspace(200, 0, 101), places, CONFIG)
    assert view.middle_mm == 100
    assert view.judged.tolist() == [False, True, True, False, False, False, False]


@given(
    spacing_mm=st.floats(0.4, 3), bright_mm=st.floats(50, 150), up_mm=st.floats(-20, 20), extent_mm=st.floats(150, 250)
)
def test_a_place_lies_in_the_window_where_it_does_in_the_patient(
    spacing_mm: float, bright_mm: float, up_mm: float, extent_mm: float
) -> None:
    z_mm = 180 - np.arange(int(extent_mm / spacing_mm)) * spacing_mm
    volume = np.zeros((len(z_mm), 1, 16, 16), np.uint8)
    near = np.abs(z_mm - bright_mm) <= 4
    volume[near] = 200
    middle_mm = float(z_mm[near].mean()) - up_mm
    window = stack_window(volume, z_mm, middle_mm, CONFIG)[0].mean(axis=(1, 2))
    assert window.shape == (32,)
    centre = (window * np.arange(32)).sum() / window.sum()
    # The cut begins at a whole plane, and the grid of a stack need not hold its middle.
    assert centre == pytest.approx(15.5 - up_mm / 2, abs=0.8)


@given(middle=st.floats(10, 50), seed=st.integers(0, 1000), shift_mm=st.sampled_from([0.0, 6.0]))
def test_a_training_window_lies_about_the_place_give_or_take_the_shift(
    middle: float, seed: int, shift_mm: float
) -> None:
    pixels = np.zeros((1, 61, 16, 16), np.uint8)
    pixels[:, int(middle) - 2 : int(middle) + 3] = 200
    augment = VolumeAugmenter(replace(STILL, shift_z_mm=shift_mm), GRID)
    profile = augment.around(pixels, int(middle), seed)[0].mean(axis=(1, 2))
    centre = (profile * np.arange(32)).sum() / profile.sum()
    assert abs(centre - 15.5) <= shift_mm / GRID.voxel_mm + 0.05
