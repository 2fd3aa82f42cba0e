"""What boxes tell of the cells of a level's images: in which the fracture is.

A cell is a square of CELL_PX pixels of an image, one place of the map that an encoder makes of it.
"""

from dataclasses import dataclass

import numpy as np

from cspine.config import Config
from cspine.data.level_crops import LevelPlace, Move, crop_points_mm

CELL_PX = 8
UNKNOWN = -1.0


@dataclass(frozen=True, eq=False)
class SliceTruth:
    """What is known of a study's slices, cranial to caudal, about one level.

    `seen` int8 (z,): 1 its fracture is seen, 0 it is not, -1 unknown. `boxes_mm` (z, 4): left, top, right and bottom of
    the box about it, from the middle of the cached field; NaN where it is not seen.
    """

    seen: np.ndarray
    boxes_mm: np.ndarray


def cells_per_side(size_px: int) -> int:
    """How many cells an image has along an edge; the last one may reach beyond it."""
    return -(-size_px // CELL_PX)


def cell_truth(
    truth: SliceTruth, indices: np.ndarray, place: LevelPlace, config: Config, move: Move | None
) -> np.ndarray:
    """int8 (images, cells, cells) of the images of these slices: 1 in the box, 0 not, -1 unknown or about its edge.

    People draw boxes with a margin: of `crop.box_margin_mm` within their edges nothing is known. What remains counts
    for all cells that it touches, and is at least the box's middle.
    """
    side = cells_per_side(config.data.image_size_px)
    middles = (np.arange(side) + 0.5) * CELL_PX - 0.5
    points_px = np.stack(np.meshgrid(middles, middles), axis=-1).reshape(-1, 2)
    x, y = crop_points_mm(place, config, move, points_px).T
    half_mm = CELL_PX * config.crop.side_mm / config.data.image_size_px / 2
    left, top, right, bottom = truth.boxes_mm[indices].T[..., None]
    # How far a cell's middle lies outside the box, along the worse axis.
    beyond_mm = np.maximum.reduce([left - x, x - right, top - y, y - bottom])
    across, down = (np.minimum(config.crop.box_margin_mm, half) for half in ((right - left) / 2, (bottom - top) / 2))
    core = [left + across - x, x - right + across, top + down - y, y - bottom + down]
    seen = np.where(np.maximum.reduce(core) <= half_mm, 1, np.where(beyond_mm <= 3 * half_mm, -1, 0))
    state = truth.seen[indices][:, None]
    return np.where(state == 1, seen, state).astype(np.int8).reshape(-1, side, side)
