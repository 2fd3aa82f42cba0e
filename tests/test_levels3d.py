"""Voxels to levels: labels, one piece each, boxes and centres in mm, a margin around the spine."""

import numpy as np
import pytest

from cspine.data.geometry import Geometry
from cspine.data.grid import Grid
from cspine.data.levels3d import level_boxes_mm, level_centres_mm, level_labels, spine_mask
from cspine.data.preprocess import Crop

# 40 slices 2 mm apart, 1 mm pixels; a crop of the whole slice and a grid of 2 mm.
Z_MM = 100 - 2.0 * np.arange(40)
POSITIONS = np.column_stack([np.full(40, -10.0), np.full(40, -20.0), Z_MM])
FRAME = Geometry(np.arange(40), POSITIONS, np.eye(3)[0], np.eye(3)[1], (1.0, 1.0), None)
GRID, CROP = Grid(Z_MM, 2.0, 30), Crop(0, 0, 60, 60, 60)


def block(level: int, z: slice, y: slice, x: slice) -> np.ndarray:
    probabilities = np.zeros((7, *GRID.shape), np.float32)
    probabilities[level - 1, z, y, x] = 0.9
    return probabilities


def test_the_likelier_level_wins_and_specks_go() -> None:
    probabilities = block(3, slice(5, 10), slice(5, 15), slice(5, 15))
    probabilities[3, 8:12, 5:15, 5:15] = 0.95
    probabilities[2, 30, 2, 2] = 0.99
    probabilities[4, 20:25] = 0.4
    labels = level_labels(probabilities)
    assert set(np.unique(labels)) == {0, 3, 4}
    assert (labels[5:8, 5:15, 5:15] == 3).all()
    assert (labels[8:12, 5:15, 5:15] == 4).all()
    assert labels[30, 2, 2] == 0
    assert level_labels(probabilities, largest_piece=False)[30, 2, 2] == 3
    assert (level_labels(probabilities, threshold=0.3)[20:25] == 5).all()


def test_boxes_and_centres_are_in_patient_mm() -> None:
    labels = level_labels(block(2, slice(5, 10), slice(10, 14), slice(3, 5)))
    boxes, centres = (made(labels, GRID, CROP, FRAME) for made in (level_boxes_mm, level_centres_mm))
    # A voxel is 2 mm: x from the face of voxel 3, which begins at pixel face 6, to the end of voxel 4, at 10.
    assert boxes[1] == pytest.approx(np.array([[-4.5, -0.5, 81], [-0.5, 7.5, 91]]))
    assert centres[1] == pytest.approx(np.array([-2.5, 3.5, 86]))
    assert np.isnan(np.delete(boxes, 1, axis=0)).all()
    assert np.isnan(np.delete(centres, 1, axis=0)).all()


def test_the_margin_around_the_spine_is_in_mm() -> None:
    labels = level_labels(block(6, slice(10, 20), slice(10, 20), slice(10, 20)))
    near = spine_mask(labels, 6.0, GRID.voxel_mm)
    assert near[15, 15].nonzero()[0].tolist() == list(range(7, 23))
    assert np.array_equal(spine_mask(labels, 0.0, 2.0), labels > 0)
    assert not spine_mask(np.zeros(GRID.shape, np.uint8), 6.0, 2.0).any()
