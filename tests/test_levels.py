import numpy as np
import pytest

from cspine.data.levels import clean_levels, level_extents, level_presence

VOXEL_MM = (1.0, 0.5, 0.5)  # a voxel of 0.25 mm3: a speck has fewer than 200


def ring(depth: int = 12) -> np.ndarray:
    """C3 as a ring about an open canal from slice 4 to 4 + depth, C5 as a block below it."""
    mask = np.zeros((40, 80, 80), np.uint8)
    mask[4 : 4 + depth, 20:40, 20:40] = 3
    mask[4 : 4 + depth, 26:34, 26:34] = 0
    mask[22:34, 20:40, 22:42] = 5
    return mask


def test_a_clean_mask_is_left_as_it_is_with_its_canal():
    mask = ring()
    assert np.array_equal(clean_levels(mask.copy(), VOXEL_MM), mask)
    at_the_edge = ring()
    at_the_edge[:4] = at_the_edge[4]  # a ring cut by the stack's edge keeps its canal too
    assert np.array_equal(clean_levels(at_the_edge.copy(), VOXEL_MM), at_the_edge)


def test_specks_go_wherever_they_lie():
    mask = ring()
    dirty = mask.copy()
    dirty[0, 70:73, 70:73] = 3  # far
    dirty[24:26, 28:31, 30:33] = 3  # inside another level
    dirty[39, 0, 0] = 7  # all there is of a level
    assert np.array_equal(clean_levels(dirty, VOXEL_MM), mask)


@pytest.mark.parametrize(("shift_mm", "kept"), [(9, True), (12, False)])
def test_a_larger_piece_is_kept_near_the_vertebra_only(shift_mm, kept):
    dirty = ring()
    start = 40 + 2 * shift_mm
    piece = np.s_[8:13, 28:36, start : start + 6]  # 240 voxels, 60 mm3
    dirty[piece] = 3
    assert (clean_levels(dirty, VOXEL_MM)[piece] == 3).all() == kept


def test_the_size_of_a_speck_is_in_mm3_not_in_voxels():
    dirty = ring()
    piece = np.s_[8:13, 28:36, 44:50]
    dirty[piece] = 3
    assert not clean_levels(dirty.copy(), (0.8, 0.5, 0.5))[piece].any()  # 48 mm3
    assert clean_levels(dirty.copy(), VOXEL_MM)[piece].all()


def test_pieces_that_share_a_column_are_told_apart():
    dirty = ring()
    dirty[38:40, 22:24, 22:24] = 3  # straight below C3, beyond C5
    assert np.array_equal(clean_levels(dirty, VOXEL_MM), ring())


def test_cavities_are_filled_by_the_level_about_them():
    dirty = ring()
    dirty[26:29, 26:30, 28:33] = 0
    dirty[30, 30, 30] = 2  # a speck inside C5 leaves a cavity of C5
    assert np.array_equal(clean_levels(dirty, VOXEL_MM), ring())


def test_presence_is_multilabel_and_by_area():
    mask = np.zeros((3, 40, 40), np.uint8)
    mask[0, 5:10, 5:10] = 1
    mask[0, 20:26, 20:26] = 2
    mask[1, 5:9, 5:9] = 3  # 16 pixels
    assert level_presence(mask, 0.125).astype(int).tolist() == [[1, 1, 0, 0, 0, 0, 0], [0] * 7, [0] * 7]
    assert level_presence(mask, 1.0)[1, 2]


def test_extents_are_the_centres_of_the_outermost_slices():
    presence = np.zeros((6, 7), bool)
    presence[0:2, 0] = presence[2:5, 1] = presence[5, 6] = True
    z_mm = np.array([50.0, 47, 44.5, 42, 39, 30])
    extents = level_extents(presence, z_mm)
    assert extents.z_top_mm[[0, 1, 6]].tolist() == [50, 44.5, 30]
    assert extents.z_bottom_mm[[0, 1, 6]].tolist() == [47, 39, 30]
    assert np.isnan(extents.z_top_mm[2:6]).all()
    assert np.isnan(extents.z_bottom_mm[2:6]).all()
    assert np.flatnonzero(extents.cut).tolist() == [0, 6]


def test_a_level_enclosed_by_another_is_no_cavity():
    mask = ring()
    mask[25:31, 26:33, 28:34] = 6  # 63 mm3, so no speck
    assert np.array_equal(clean_levels(mask.copy(), VOXEL_MM), mask)
