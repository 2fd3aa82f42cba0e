"""What a mask tells of the seven levels, freed of specks and holes: on which slices each is seen, and its extent."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from cspine.anatomy import LEVELS

# A piece smaller than this, a cube of 3.7 mm, is a speck wherever it lies; vertebrae have some 3,000 to 15,000 mm3.
SPECK_MM3 = 50.0
# A larger piece belongs to the vertebra if its box begins this near to the box of the vertebra's largest piece: a tip
# of a process that the grid cuts off does, a patch of another vertebra under the wrong label does not.
NEAR_MM = 10.0
# A level counts as visible on a slice from this area on.
VISIBLE_MM2 = 2.5
TOUCHING = np.ones((3, 3, 3), bool)
Box = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class LevelExtents:
    """From where to where each of C1..C7 is seen; mm along the slice normal, cranial is greater, NaN if absent."""

    z_top_mm: np.ndarray  # (7,) centre of the most cranial slice that shows the level
    z_bottom_mm: np.ndarray  # (7,) centre of the most caudal one
    cut: np.ndarray  # (7,) bool: seen on the first or last slice, so perhaps only in part inside the stack


def clean_levels(mask: np.ndarray, voxel_mm: tuple[float, float, float]) -> np.ndarray:
    """Labels 0 to 7 as uint8 (z, y, x) without specks (SPECK_MM3, NEAR_MM) and cavities; changed in place.

    Cavities are background closed in from all sides by one level. The spinal canal and the transverse foramina are
    open above and below, so they stay.
    """
    for change in (_drop_specks, _fill_cavities):
        boxes = ndimage.find_objects(mask, len(LEVELS))
        for level, box in enumerate(boxes, start=1):
            if box is not None:
                change(mask[box], level, voxel_mm)
    return mask


def _drop_specks(mask: np.ndarray, level: int, voxel_mm: tuple[float, float, float]) -> None:
    pieces = list(_pieces(mask == level))
    volumes_mm3 = np.array([np.count_nonzero(shape) for _, shape in pieces]) * np.prod(voxel_mm)
    distances_mm = _distances_mm([box for box, _ in pieces], int(volumes_mm3.argmax()), voxel_mm)
    for piece in np.flatnonzero((volumes_mm3 < SPECK_MM3) | (distances_mm > NEAR_MM)):
        box, shape = pieces[piece]
        mask[box][shape] = 0


def _pieces(voxels: np.ndarray) -> Iterator[tuple[Box, np.ndarray]]:
    """Box and bool voxels in it of each connected piece of bool (z, y, x).

    What is apart seen from above is apart: labelled column by column, far specks do not make the whole stack one task.
    """
    columns, _ = ndimage.label(voxels.any(axis=0), TOUCHING[0])
    for column, (ys, xs) in enumerate(ndimage.find_objects(columns), start=1):
        labels, _ = ndimage.label(voxels[:, ys, xs] & (columns[ys, xs] == column), TOUCHING)
        for piece, box in enumerate(ndimage.find_objects(labels), start=1):
            z, y, x = box
            shifted = z, slice(y.start + ys.start, y.stop + ys.start), slice(x.start + xs.start, x.stop + xs.start)
            yield shifted, labels[box] == piece


def _distances_mm(boxes: list[Box], main: int, voxel_mm: tuple[float, float, float]) -> np.ndarray:
    """(n,) distance of each piece's box from the box of the main piece; 0 where they overlap."""
    starts = np.array([[part.start for part in box] for box in boxes])
    stops = np.array([[part.stop for part in box] for box in boxes])
    gaps = np.maximum(0, np.maximum(starts - stops[main], starts[main] - stops))
    return np.linalg.norm(gaps * np.array(voxel_mm), axis=1)


def _fill_cavities(mask: np.ndarray, level: int, _voxel_mm: tuple[float, float, float]) -> None:
    # The border joins all background that reaches the box's sides, also at the edge of the stack.
    regions, count = ndimage.label(np.pad(mask != level, 1, constant_values=True))
    if count > 1:
        closed = regions[1:-1, 1:-1, 1:-1] > 1  # the border's region is the first that is met
        mask[closed & (mask == 0)] = level


def level_presence(mask: np.ndarray, pixel_area_mm2: float) -> np.ndarray:
    """bool (z, 7): the level has at least 2.5 mm2 on the slice of a cleaned mask (z, y, x)."""
    areas = np.array([np.bincount(plane.ravel(), minlength=len(LEVELS) + 1)[1:] for plane in mask]) * pixel_area_mm2
    return areas >= VISIBLE_MM2


def level_extents(presence: np.ndarray, z_mm: np.ndarray) -> LevelExtents:
    """Extents from presence, bool (z, 7), and the slices' places (z,), cranial to caudal."""
    seen = presence.any(axis=0)
    first, last = presence.argmax(axis=0), len(presence) - 1 - presence[::-1].argmax(axis=0)
    return LevelExtents(
        z_top_mm=np.where(seen, z_mm[first], np.nan),
        z_bottom_mm=np.where(seen, z_mm[last], np.nan),
        cut=presence[0] | presence[-1],
    )
