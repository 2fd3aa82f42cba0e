"""What one scan covers, and how finely: field of view, matrix, slice spacing, thickness, extent.

Drawn to match the competition's data: slices 0.488 to 1.0 mm thick, overlapping in 40 of 87 studies; pixels of 0.2 to
0.7 mm at 512 x 512; about 314 slices over 198 mm. A few studies have a larger matrix, or seven columns more than rows,
as three of the competition's have. The phantom ends at T3: its scans reach 280 mm, the competition's 334 mm.
"""

import math
from dataclasses import dataclass

import numpy as np

from cspine.phantom.canvas import Grid
from cspine.phantom.labels import StudyPlan, draw_levels
from cspine.phantom.spine import Spine

THICKNESS_MM = (0.488, 0.6, 0.625, 0.75, 0.8, 0.9, 1.0)
THICKNESS_SHARE = (0.08, 0.10, 0.32, 0.15, 0.15, 0.05, 0.15)
OVERLAP_SHARE = 40 / 87
OVERLAPPING = (0.5, 0.6, 0.8)  # spacing as a share of the thickness
FIELD_MM, FIELD_SPREAD, FIELD_RANGE_MM = 205.0, 0.16, (135.0, 365.0)
LARGE_SHARE, ODD_SHARE, ODD_COLUMNS = 0.02, 0.02, 7
CUT_SHARE = 0.03
BELOW_C7_MM = 24.0


@dataclass(frozen=True)
class Acquisition:
    """The voxels of one scan; slices thicker than the grid's spacing overlap."""

    grid: Grid
    thickness_mm: float


def draw_acquisition(spine: Spine, plan: StudyPlan, matrix: int, spacing_mm: float | None) -> Acquisition:
    """The scan of one patient; `spacing_mm` None draws it, else all studies have it and are as thick or thicker."""
    rng = plan.rng("acquisition")
    spacing, thickness = draw_spacing(rng)
    if spacing_mm is not None:
        spacing, thickness = spacing_mm, spacing_mm * float(rng.choice([1.0, 1.0, 1.25, 1.5]))
    field_mm = float(np.clip(FIELD_MM * math.exp(FIELD_SPREAD * rng.standard_normal()), *FIELD_RANGE_MM))
    rows, columns = draw_shape(matrix, rng)
    pixel_mm = field_mm / rows
    top, bottom = _extent(spine, plan, rng)
    middle = spine.frames[3].origin
    x = middle[0] + rng.normal(0, 4) - (columns - 1) * pixel_mm / 2
    # The vertebrae lie behind the middle of a field that shows the whole neck.
    y = middle[1] + rng.normal(0, 5) - 0.52 * rows * pixel_mm + (6.0 if field_mm < 170 else 0.0)
    count = max(int((top - bottom) / spacing) + 1, 3)
    return Acquisition(Grid((count, rows, columns), spacing, pixel_mm, (float(x), float(y), float(top))), thickness)


def draw_spacing(rng: np.random.Generator) -> tuple[float, float]:
    """Distance between slices and their thickness, in mm."""
    thickness = float(rng.choice(THICKNESS_MM, p=THICKNESS_SHARE))
    overlap, share = rng.random() < OVERLAP_SHARE, float(rng.choice(OVERLAPPING))
    return (round(thickness * share, 4) if overlap else thickness), thickness


def draw_shape(matrix: int, rng: np.random.Generator) -> tuple[int, int]:
    """Rows and columns: square but for a few."""
    kind = rng.random()
    if kind < LARGE_SHARE:
        return matrix * 3 // 2, matrix * 3 // 2
    return matrix, matrix + (ODD_COLUMNS if kind < LARGE_SHARE + ODD_SHARE else 0)


def _extent(spine: Spine, plan: StudyPlan, rng: np.random.Generator) -> tuple[float, float]:
    """The highest and lowest slice: all of C1 to C7, but for a few scans that miss levels at one end.

    Those keep the levels that are fractured, or levels drawn as fractured ones are where none is: so what a scan covers
    says nothing of the patient's label.
    """
    first, last = 0, 6
    kept = plan.levels or draw_levels(plan.rng("kept"))
    cut, above = rng.random() < CUT_SHARE, rng.random() < 0.5
    share = rng.random()
    if cut and above:
        first = round(share * min(kept))
    elif cut:
        last = max(kept) + round(share * (6 - max(kept)))
    free_above, free_below = 12.0 + 14.0 * rng.gamma(2.0), rng.uniform(0.0, 34.0)
    top = spine.frames[first].origin[2] + (free_above + 10.0 if first == 0 else 14.0)
    bottom = _lowest(spine, last) - (free_below if last == 6 else 2.0)
    return min(top, spine.frames[0].origin[2] + 100.0), max(bottom, spine.frames[9].origin[2] - 6.0)


def _lowest(spine: Spine, level: int) -> float:
    """Below all of a level: its body, pillars and the tip of its spinous process."""
    frame, size = spine.frames[level], spine.sizes[level]
    tip = np.array([0.0, size.lamina_y + size.spinous, -size.spinous_drop * size.spinous - 8.0])
    body = frame.origin[2] - (BELOW_C7_MM if level == 6 else size.height / 2 + 9.0)
    return float(min(body, frame.to_world(tip)[2] - 2.0))
