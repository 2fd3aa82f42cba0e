"""Bones grown from coarse labels, on blocks whose levels are known. Axes z (down), y (backwards), x."""

import numpy as np
import pytest

from cspine.data.bones import BONE_HU, REACH_MM, grow_levels, level_bones, solid_bones

TISSUE_HU, SHAPE = 40, (100, 90, 60)
MIDDLE = slice(20, 40)


def spine(tops: dict[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """HU, labels and probability: by level the first of the 12 planes of a body, found but for its upper edge."""
    hu = np.full(SHAPE, TISSUE_HU, np.int16)
    labels = np.zeros(SHAPE, np.uint8)
    for level, top in tops.items():
        hu[top : top + 12, 10:26, MIDDLE] = 600
        labels[top + 2 : top + 12, 10:26, MIDDLE] = level
    return hu, labels, np.where(labels > 0, 0.9, 0).astype(np.float32)


def test_a_process_gets_the_label_of_its_body_and_a_neighbours_its_own():
    tops = {4: 20, 5: 36, 6: 52}
    hu, labels, probability = spine(tops)
    true = np.zeros(SHAPE, np.uint8)
    for level, top in tops.items():
        true[top : top + 12, 10:26, MIDDLE] = level
        # It slopes down until it lies behind the body below.
        for y in range(26, 58):
            start = top + 4 + (y - 26) // 2
            true[start : start + 5, y, 27:33] = level
    hu[true > 0] = 600
    bones = level_bones(hu, labels, probability, 1.0)
    assert (bones[true > 0] == true[true > 0]).mean() > 0.98
    assert (bones[:, 45:][true[:, 45:] > 0] == true[:, 45:][true[:, 45:] > 0]).mean() > 0.95
    assert np.count_nonzero(bones[true == 0]) < 0.1 * np.count_nonzero(true)


@pytest.mark.parametrize("voxel_mm", [0.7, 1.0])
def test_bone_that_is_joined_but_too_far_is_left_out(voxel_mm):
    shape = tuple(round(side / voxel_mm) for side in (90, 90, 24))
    # Up to 20 mm found, from there on bone alone; another level lies lower, beside what is too far.
    z, y, x = (np.indices(shape) + 0.5) * voxel_mm
    bar, lower = (z < 14) & (y > 4) & (abs(x - 12) < 6), (z > 75) & (y > 60)
    hu = np.where(bar | lower, 600, TISSUE_HU).astype(np.int16)
    labels = np.where(bar & (y < 20), 5, np.where(lower, 6, 0)).astype(np.uint8)
    for reach_mm in (REACH_MM, 0.0):
        bones = level_bones(hu, labels, (labels > 0).astype(np.float32), voxel_mm, reach_mm)
        assert (y[bones == 5]).max() == pytest.approx(20 + reach_mm, abs=3)


def test_the_skull_above_c1_and_the_vertebra_below_the_last_are_left_out():
    hu, labels, probability = spine({1: 30, 2: 46, 3: 62})
    hu[10:30, 5:60, 10:50] = 700  # sits on C1
    hu[74:90, 10:26, MIDDLE] = 600  # hangs on C3
    bones = level_bones(hu, labels, probability, 1.0)
    assert not bones[:25].any()
    assert not bones[79:].any()
    assert (bones[33:42, 12:24, 22:38] == 1).all()
    assert (bones[65:73, 12:24, 22:38] == 3).all()


def test_a_tilted_c1_is_left_by_the_skull_behind_it():
    # The ring rises towards the front, so that the skull behind it lies no higher than its front.
    hu, labels = np.full(SHAPE, TISSUE_HU, np.int16), np.zeros(SHAPE, np.uint8)
    for y in range(10, 50):
        top = 20 + (y - 10) // 2
        hu[top : top + 8, y, 15:45] = 600
        labels[top : top + 8, y, 15:45] = 1
        hu[top - 14 : top - 1, y, 15:45] = 700
        hu[top - 1, y, 28:32] = 600
    hu[60:72, 10:26, MIDDLE], labels[60:72, 10:26, MIDDLE] = 600, 2
    bones = level_bones(hu, labels, (labels > 0).astype(np.float32), 1.0)
    skull = hu == 700
    assert (bones[skull] == 1).mean() < 0.03
    assert (bones[labels == 1] == 1).mean() > 0.9


def test_touching_neighbours_meet_where_bone_is_weakest():
    hu, labels, probability = spine({4: 20, 5: 48})
    hu[32:48, 10:26, MIDDLE] = 600
    joint = 43  # nearer to C5
    hu[joint : joint + 2, 10:26, MIDDLE] = BONE_HU + 60
    bones = level_bones(hu, labels, probability, 1.0)
    assert (bones[34 : joint - 1, 12:24, 22:38] == 4).all()
    assert (bones[joint + 3 : 58, 12:24, 22:38] == 5).all()


def test_without_bone_nothing_changes():
    hu, labels, probability = spine({3: 20, 4: 36})
    assert np.array_equal(level_bones(np.full_like(hu, TISSUE_HU), labels, probability, 1.0), labels)
    nothing = np.zeros_like(labels)
    assert not level_bones(hu, nothing, probability, 1.0).any()


def test_marrow_is_filled_and_stray_bone_left_out():
    shape = (40, 40, 50)
    hu, regions = np.full(shape, 20, np.int16), np.zeros(shape, np.uint8)
    hu[8:32, 8:32, 8:32], hu[12:28, 12:28, 12:28] = 800, 60
    hu[18:22, 18:22, 42:46] = 800
    regions[4:36, 4:36, 4:48] = 2
    bones = solid_bones(hu, regions, 1.0)
    assert (bones[9:31, 9:31, 9:31] == 2).all()
    assert not bones[:, :, 40:].any()


def test_marrow_weaker_than_bone_does_not_cut_a_level_off():
    hu, labels, probability = spine({4: 20, 5: 36})
    for top in (20, 36):
        hu[top + 2 : top + 10, 12:24, 22:38] = 100
        hu[top + 4 : top + 8, 26:50, 27:33] = 600
    # Stage 1 is sure of the marrow alone.
    probability[labels > 0] = 0.6
    probability[24:28, 15:20, 26:34] = probability[40:44, 15:20, 26:34] = 0.95
    bones = level_bones(hu, labels, probability, 1.0)
    assert (bones[25:27, 28:48, 28:32] == 4).all()
    assert (bones[41:43, 28:48, 28:32] == 5).all()
    assert (bones[24:28, 15:20, 26:34] == 4).all()


@pytest.mark.parametrize("start", [15, 16, 17])
def test_regions_on_fine_voxels_leave_no_bone_at_the_surface_out(start):
    shape = (60, 60, 60)
    hu, labels = np.full(shape, -100, np.int16), np.zeros(shape, np.uint8)
    bone, found = ((slice(start + inset, 45 - inset),) * 3 for inset in (0, 5))
    hu[bone], labels[found] = 400, 7
    regions = grow_levels(hu, labels, (labels > 0).astype(np.float32), 0.6, REACH_MM)
    assert (regions[bone] == 7).all()
    assert not regions[:10].any()
