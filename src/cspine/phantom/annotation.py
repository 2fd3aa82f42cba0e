"""What people add to a study: boxes, drawn loosely and not on every slice, and masks with specks and holes."""

import numpy as np

from cspine.anatomy import LEVELS
from cspine.phantom.canvas import Canvas, Grid
from cspine.phantom.fractures import Fracture
from cspine.tables import BOX_COLUMNS

SMALLEST_BOX_VOXELS = 3
# Slices are left out in this share of the studies. Fractures apart from each other leave gaps too; together about 46 %
# of the studies have them, as 108 of the competition's 235.
SKIPPING_SHARE = 0.16
# Median distance from the fracture to its box, for boxes of 2.4 % of the slice; its logarithm's spread over studies.
LOOSE_MM, LOOSE_SPREAD = 9.5, 0.35
JITTER_MM = 1.5
# A ball of this radius has 24 mm3, half of what the cleaning of masks takes for a speck.
FLAW_RADIUS_MM = (0.3, 1.8)
SPECK_REACH_MM = 25.0
TRIES = 30


def find_boxes(
    canvas: Canvas, fractures: list[Fracture], numbers: np.ndarray, rng: np.random.Generator
) -> list[dict[str, int]]:
    """At most one box a slice, about the largest fracture there, a few mm loose; `numbers` are the files' (z,)."""
    kept = rng.uniform(0.6, 0.9) if rng.random() < SKIPPING_SHARE else 1.0
    loose_mm = LOOSE_MM * float(np.exp(LOOSE_SPREAD * rng.standard_normal()))
    levels = np.zeros(256, np.uint8)
    levels[[f.number for f in fractures]] = [f.level + 1 for f in fractures]
    boxes = []
    for k in np.flatnonzero(canvas.truth.any((1, 2))):
        keep, jitter = rng.random() < kept, rng.uniform(-JITTER_MM, JITTER_MM, (2, 2))
        level = levels[canvas.truth[k]]
        counts = np.bincount(level.ravel(), minlength=len(LEVELS) + 1)[1:]
        places = np.argwhere(level == counts.argmax() + 1)
        if not keep or len(places) < SMALLEST_BOX_VOXELS:
            continue
        margins = np.ceil(np.maximum(loose_mm + jitter, 0.5) / canvas.grid.pixel_mm).astype(int)
        (y0, x0), (y1, x1) = _widened(places, margins, canvas.truth.shape[1:])
        values = (x0, y0, x1 - x0, y1 - y0, numbers[k])
        boxes.append({name: int(v) for name, v in zip(BOX_COLUMNS, values, strict=True)})
    return sorted(boxes, key=lambda box: box["slice_number"])


def _widened(places: np.ndarray, margins: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """First and last + 1 (y, x) about voxels (n, 2), with margins (first/last, y/x), inside the slice."""
    return np.maximum(places.min(0) - margins[0], 0), np.minimum(places.max(0) + 1 + margins[1], shape)


def flawed_mask(label: np.ndarray, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """Labels (z, y, x) with specks beside the bones and cavities inside them, which cleaning takes away again.

    A grid too coarse for cavities gets none.
    """
    mask = label.copy()
    bone = np.argwhere(label > 0)
    if not len(bone):
        return mask
    voxel_mm = np.array([grid.spacing_mm, grid.pixel_mm, grid.pixel_mm])
    for value in rng.integers(1, label.max() + 1, rng.integers(2, 6)):
        shifts = rng.uniform(-SPECK_REACH_MM, SPECK_REACH_MM, (TRIES, 3)) / voxel_mm
        places = bone[rng.integers(len(bone), size=TRIES)] + np.rint(shifts).astype(int)
        _replace_ball(mask, places, 0, int(value), rng.uniform(*FLAW_RADIUS_MM), voxel_mm)
    for _ in range(rng.integers(2, 6)):
        places = bone[rng.integers(len(bone), size=TRIES)]
        radius_mm = rng.uniform(*FLAW_RADIUS_MM)
        _replace_ball(mask, places, int(label[tuple(places[0])]), 0, radius_mm, voxel_mm)
    return mask


def _replace_ball(
    mask: np.ndarray, places: np.ndarray, before: int, after: int, radius_mm: float, voxel_mm: np.ndarray
) -> None:
    """Fill a ball at the first place (z, y, x) with nothing but `before` in and around it, else nowhere."""
    reach = np.floor(radius_mm / voxel_mm).astype(int)
    axes = np.ogrid[tuple(slice(-r, r + 1) for r in reach)]
    ball = sum((axis * step) ** 2 for axis, step in zip(axes, voxel_mm, strict=True)) <= radius_mm**2
    for place in places:
        first, last = place - reach, place + reach + 1
        if (first < 1).any() or (last >= mask.shape).any():
            continue
        around = tuple(slice(a - 1, b + 1) for a, b in zip(first, last, strict=True))
        if (mask[around] == before).all():
            mask[tuple(slice(a, b) for a, b in zip(first, last, strict=True))][ball] = after
            return
