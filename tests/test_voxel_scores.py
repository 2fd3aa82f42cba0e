"""Dice of level maps against masks, and what a mask learned from them would keep."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from cspine.config import Preprocess
from cspine.level_maps import LevelMap, level_map
from cspine.voxel_scores import map_scores

FIELD_MM, SIDE, SIZE_PX = 40.0, 10, 20  # voxels of 4 mm, two pixels wide
PLANES_MM = 4.0 * np.arange(6)[::-1]
SETTINGS = Preprocess(mask_margin_mm=0, field_mm=FIELD_MM, size_px=SIZE_PX)


@dataclass
class _Geometry:
    z_mm: np.ndarray = field(default_factory=lambda: PLANES_MM)


@dataclass
class _Study:
    levels: np.ndarray
    presence: np.ndarray | None = field(default_factory=lambda: np.ones((6, 7), bool))
    geometry: _Geometry = field(default_factory=_Geometry)


def study(*boxes: tuple[int, slice]) -> _Study:
    """Levels 1 to 7 as blocks, 8 pixels square, over some slices."""
    levels = np.zeros((6, SIZE_PX, SIZE_PX), np.uint8)
    for level, where in boxes:
        levels[where, 4:12, 4:12] = level
    return _Study(levels)


def mapped(*boxes: tuple[int, slice]) -> LevelMap:
    """The same on the map's voxels."""
    probabilities = np.zeros((7, 6, SIDE, SIDE))
    for level, where in boxes:
        probabilities[level - 1, where, 2:6, 2:6] = 0.9
    return level_map(probabilities, PLANES_MM, FIELD_MM)


def test_a_perfect_map_has_a_dice_of_one_and_its_mask_keeps_the_spine_alone() -> None:
    same = ((3, slice(0, 2)), (4, slice(2, 5)))
    scores = map_scores([(study(*same), mapped(*same))], SETTINGS)
    assert scores["dice"] == scores["mask_keeps"] == 1
    assert scores["mask_leaves"] == pytest.approx(5 * 64 / (6 * 400))


def test_a_level_off_costs_dice_and_no_pixel_of_the_mask() -> None:
    true, found = ((3, slice(0, 2)), (4, slice(2, 4))), ((4, slice(0, 2)), (5, slice(2, 4)))
    scores = map_scores([(study(*true), mapped(*found))], SETTINGS)
    assert scores["dice"] == 0
    assert scores["mask_keeps"] == 1


def test_half_a_level_has_two_thirds_and_levels_and_studies_count_alike() -> None:
    half = study((3, slice(0, 4)), (5, slice(4, 5))), mapped((3, slice(0, 2)), (5, slice(4, 5)))
    whole = study((1, slice(0, 1))), mapped((1, slice(0, 1)))
    scores = map_scores([half, whole], SETTINGS)
    assert scores["dice"] == pytest.approx(((2 / 3 + 1) / 2 + 1) / 2)
    assert scores["mask_keeps"] == pytest.approx((3 / 5 + 1) / 2)


def test_studies_without_masks_have_no_part() -> None:
    unknown = study((3, slice(0, 2)))
    unknown.presence = None
    assert map_scores([(unknown, mapped((3, slice(0, 2))))], SETTINGS) == {}
