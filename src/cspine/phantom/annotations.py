"""What people draw on a study: boxes about fractures, loose and with gaps, and masks with specks and holes."""

import numpy as np
from scipy import ndimage

from cspine.anatomy import LEVELS
from cspine.phantom.canvas import Grid
from cspine.phantom.fractures import Fracture
from cspine.phantom.labels import StudyPlan
from cspine.tables import BOX_COLUMNS

SMALLEST_BOX_VOXELS = 3
GAP_SHARE = 108 / 235  # of the annotated studies that have gaps between annotated slices
LOOSE_MM = (0.5, 3.0)
SPECKS, HOLES = (2, 7), (1, 4)
SPECK_REACH_MM = 12.0


def find_boxes(
    truth: np.ndarray, fractures: list[Fracture], numbers: np.ndarray, plan: StudyPlan, pixel_mm: float
) -> list[dict[str, int]]:
    """At most one box a slice, about the largest fracture there; some studies are annotated with gaps."""
    rng = plan.rng("boxes")
    kept = rng.uniform(0.6, 0.95) if rng.random() < GAP_SHARE else 1.0
    levels = np.zeros(256, np.uint8)
    levels[[f.number for f in fractures]] = [f.level + 1 for f in fractures]
    boxes = []
    for k in np.flatnonzero(truth.any((1, 2))):
        before, after, keep = *np.rint(rng.uniform(*LOOSE_MM, (2, 2)) / pixel_mm).astype(int), rng.random() < kept
        level = levels[truth[k]]
        counts = np.bincount(level.ravel(), minlength=8)[1:]
        ys, xs = np.nonzero(level == counts.argmax() + 1)
        if not keep or len(ys) < SMALLEST_BOX_VOXELS:
            continue
        x0, y0 = max(int(xs.min()) - before[0], 0), max(int(ys.min()) - before[1], 0)
        x1 = min(int(xs.max()) + after[0] + 1, truth.shape[2])
        y1 = min(int(ys.max()) + after[1] + 1, truth.shape[1])
        values = (x0, y0, x1 - x0, y1 - y0, numbers[k])
        boxes.append({name: int(v) for name, v in zip(BOX_COLUMNS, values, strict=True)})
    return sorted(boxes, key=lambda box: box["slice_number"])


def soiled(label: np.ndarray, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """A mask (z, y, x) as such masks are: with a few specks of wrong labels beside the spine, and holes within it."""
    mask = label.copy()
    z, y, x = ndimage.find_objects(((mask > 0) & (mask <= len(LEVELS))).astype(np.uint8))[0]
    reach = round(SPECK_REACH_MM / grid.pixel_mm)
    for _ in range(rng.integers(*SPECKS)):
        place = [
            int(rng.integers(z.start, z.stop)),
            int(rng.integers(max(y.start - reach, 0), min(y.stop + reach, mask.shape[1]))),
            int(rng.integers(max(x.start - reach, 0), min(x.stop + reach, mask.shape[2]))),
        ]
        spot = tuple(slice(p, p + int(n)) for p, n in zip(place, rng.integers(1, 3, 3), strict=True))
        value = int(rng.integers(1, len(LEVELS) + 1))
        mask[spot] = np.where(mask[spot] == 0, value, mask[spot])
    inside = np.argwhere(ndimage.binary_erosion(label[z, y, x] > 0, np.ones((3, 3, 3))))
    for _ in range(min(int(rng.integers(*HOLES)), len(inside))):
        place = inside[rng.integers(len(inside))] + (z.start, y.start, x.start)
        around = tuple(slice(p - 1, p + 2) for p in place)
        if len(np.unique(label[around])) == 1:
            mask[tuple(place)] = 0
    return mask
