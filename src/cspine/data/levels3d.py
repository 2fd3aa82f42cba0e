"""From the probabilities of voxels to levels: labels, boxes and centres in patient mm, the spine with a margin."""

import numpy as np
from scipy import ndimage

from cspine.anatomy import LEVELS
from cspine.data.geometry import Geometry
from cspine.data.grid import Grid
from cspine.data.levels import TOUCHING
from cspine.data.preprocess import Crop


def level_labels(probabilities: np.ndarray, threshold: float = 0.5, largest_piece: bool = True) -> np.ndarray:
    """Labels 0 to 7, uint8 (z, y, x), from probabilities (7, z, y, x): the likeliest level where one passes.

    Probabilities and threshold may be 8-bit (255 is certain). `largest_piece` keeps of each level the largest
    connected piece only.
    """
    labels = np.where(probabilities.max(axis=0) > threshold, probabilities.argmax(axis=0) + 1, 0).astype(np.uint8)
    return keep_largest(labels) if largest_piece else labels


def found_labels(likeliest: np.ndarray, probability: np.ndarray, threshold: float) -> np.ndarray:
    """Labels 0 to 7, uint8 (z, y, x), the largest piece of each: the likeliest level where its probability passes."""
    return keep_largest(np.where(probability > threshold, likeliest, 0).astype(np.uint8))


def keep_largest(labels: np.ndarray) -> np.ndarray:
    """Labels of which each level keeps its largest connected piece only; changed in place."""
    for level, box in enumerate(ndimage.find_objects(labels, len(LEVELS)), start=1):
        if box is None:
            continue
        pieces, count = ndimage.label(labels[box] == level, TOUCHING)
        if count > 1:
            main = np.bincount(pieces.ravel())[1:].argmax() + 1
            labels[box][(pieces > 0) & (pieces != main)] = 0
    return labels


def level_boxes_mm(labels: np.ndarray, grid: Grid, crop: Crop, geometry: Geometry) -> np.ndarray:
    """LPS mm (7, 2, 3): least and greatest x, y, z of each level's voxels, to their outer faces; NaN if absent."""
    boxes = np.full((len(LEVELS), 2, 3), np.nan)
    for row, box in enumerate(ndimage.find_objects(labels, len(LEVELS))):
        if box is not None:
            faces = np.array([[part.start - 0.5, part.stop - 0.5] for part in box])
            corners = np.stack(np.meshgrid(*faces, indexing="ij"), axis=-1).reshape(-1, 3)
            places = grid.to_lps(corners, crop, geometry)
            boxes[row] = places.min(axis=0), places.max(axis=0)
    return boxes


def level_centres_mm(labels: np.ndarray, grid: Grid, crop: Crop, geometry: Geometry) -> np.ndarray:
    """LPS mm (7, 3): the mean place of each level's voxels, NaN if absent."""
    centres = np.full((len(LEVELS), 3), np.nan)
    for row in range(len(LEVELS)):
        voxels = np.argwhere(labels == row + 1)
        if len(voxels):
            centres[row] = grid.to_lps(voxels.mean(axis=0), crop, geometry)
    return centres


def spine_mask(labels: np.ndarray, margin_mm: float, voxel_mm: float | tuple[float, float, float]) -> np.ndarray:
    """bool (z, y, x): the voxels within `margin_mm` of any level; a background mask learned from masks."""
    if not labels.any():
        return np.zeros(labels.shape, bool)
    return ndimage.distance_transform_edt(labels == 0, sampling=voxel_mm) <= margin_mm
