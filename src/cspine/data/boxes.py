"""Boxes about fractures on a study's slices: found by file number, clipped, bridged over gaps, moved to the cache."""

import itertools
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from cspine.data.geometry import Geometry
from cspine.data.preprocess import Crop


@dataclass(frozen=True, eq=False)
class StudyBoxes:
    """At most one box a slice, cranial to caudal.

    A box is (x, y, width, height) and covers the pixels x to x + width - 1, y to y + height - 1, as in the table.
    """

    boxes: np.ndarray  # (z, 4) float, NaN on slices without a box
    unknown: int = 0  # boxes of the table on slices that the study lacks
    outside: int = 0  # boxes of the table that are empty or hold no pixel of the image

    @property
    def present(self) -> np.ndarray:
        """bool (z,): the slice has a box."""
        return ~np.isnan(self.boxes[:, 0])


def place_boxes(rows: pd.DataFrame, geometry: Geometry, slice_shape: tuple[int, int]) -> StudyBoxes:
    """The rows of train_bounding_boxes.csv for one study on its slices, clipped to the image (rows, columns).

    `slice_number` is a file number. Several boxes on one slice become the smallest that holds them all.
    """
    index_of = {int(number): z for z, number in enumerate(geometry.file_numbers)}
    corners = np.full((len(geometry.file_numbers), 4), np.nan)
    unknown = outside = 0
    columns = ["slice_number", "x", "y", "width", "height"]
    for number, x, y, width, height in rows[columns].itertuples(index=False):
        z = index_of.get(int(number))
        box = _clip(np.array([x, y, x + width, y + height], float), slice_shape)
        if z is not None and box is not None:
            box = _clip(_moved(box, z, geometry), slice_shape)
        unknown += z is None
        outside += z is not None and box is None
        if z is not None and box is not None:
            corners[z] = np.fmin(corners[z], box)[:2].tolist() + np.fmax(corners[z], box)[2:].tolist()
    return StudyBoxes(_from_corners(corners), unknown, outside)


def bridge_gaps(placed: StudyBoxes, z_mm: np.ndarray, limit_mm: float) -> StudyBoxes:
    """Boxes also between annotated slices that lie at most `limit_mm` apart, interpolated linearly in mm."""
    boxes, annotated = placed.boxes.copy(), np.flatnonzero(placed.present)
    for first, last in itertools.pairwise(annotated):
        if last - first > 1 and abs(z_mm[last] - z_mm[first]) <= limit_mm:
            inner = np.arange(first + 1, last)
            share = ((z_mm[inner] - z_mm[first]) / (z_mm[last] - z_mm[first]))[:, None]
            boxes[inner] = (1 - share) * boxes[first] + share * boxes[last]
    return replace(placed, boxes=boxes)


def boxes_in_cache(boxes: np.ndarray, crop: Crop) -> np.ndarray:
    """(n, 4) boxes in pixels of the cached square, clipped to it; NaN where nothing of a box lies inside."""
    x, y, width, height = np.asarray(boxes, float).T
    # The crop maps pixel centres, whole numbers; a box begins and ends half a pixel beside them.
    top, left = crop.to_cached(y - 0.5, x - 0.5)
    bottom, right = crop.to_cached(y + height - 0.5, x + width - 0.5)
    corners = np.stack([left, top, right, bottom], axis=1) + 0.5
    inside = corners.clip(0, crop.size_px)
    inside[~((inside[:, :2] < inside[:, 2:]).all(axis=1))] = np.nan
    return _from_corners(inside)


def _moved(corners: np.ndarray, z: int, geometry: Geometry) -> np.ndarray:
    """Where left, top, right, bottom in the file lie in the volume, whose slices may have been straightened."""
    y, x = geometry.from_file_pixels(z, corners[[1, 3]], corners[[0, 2]])
    return np.array([x[0], y[0], x[1], y[1]])


def _clip(corners: np.ndarray, slice_shape: tuple[int, int]) -> np.ndarray | None:
    """Left, top, right, bottom inside the image; None for what is empty, outside, or not a number."""
    rows, columns = slice_shape
    inside = corners.clip(0, [columns, rows, columns, rows])
    return inside if (inside[:2] < inside[2:]).all() else None


def _from_corners(corners: np.ndarray) -> np.ndarray:
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
