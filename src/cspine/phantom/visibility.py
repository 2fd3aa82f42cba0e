"""How visible a fracture is in a scan: the change it makes, blurred as the scan is, in units of the scan's noise."""

import cv2
import numpy as np

from cspine.phantom.anatomy import render_level
from cspine.phantom.canvas import Canvas, Grid, Material
from cspine.phantom.fractures import Fracture
from cspine.phantom.spine import Spine

MARGIN_VOXELS = 4


def visibility(
    fracture: Fracture, canvas: Canvas, patient: tuple[Spine, Material, dict[str, int]], blur_mm: float, noise_hu: float
) -> float:
    """The contrast-to-noise ratio of one voxel: mean |HU broken - HU sound| over the fracture's truth, over the noise.

    The broken and the sound vertebra are rendered again, alone, in the box about the truth; their difference is blurred
    within the slice with a deviation of `blur_mm`. `noise_hu` is the noise at the neck, without the shoulders' share.
    0 where the fracture marks no voxel. A reader, or a model, adds up many voxels, so that a ratio of 1 is easily seen
    and 0.3 is faint.
    """
    marked = canvas.truth == fracture.number
    if not marked.any():
        return 0.0
    box = _box(marked)
    grid = _part(canvas.grid, box)
    spine, bone, seeds = patient
    cracks = np.stack(fracture.cracks)
    broken = render_level(grid, spine, bone, seeds, fracture.level, cracks).hu
    change = broken - render_level(grid, spine, bone, seeds, fracture.level).hu
    sigma = blur_mm / grid.pixel_mm
    seen = np.stack([cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE) for image in change])
    return float(np.abs(seen[marked[box]]).mean() / noise_hu)


def _box(marked: np.ndarray) -> tuple[slice, ...]:
    """The smallest box of voxels (z, y, x) about what is marked, with a margin."""
    places = [np.flatnonzero(marked.any(axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    sizes = zip(places, marked.shape, strict=True)
    return tuple(slice(max(p[0] - MARGIN_VOXELS, 0), min(p[-1] + MARGIN_VOXELS + 1, n)) for p, n in sizes)


def _part(grid: Grid, box: tuple[slice, ...]) -> Grid:
    z, y, x = box
    first = grid.origin
    origin = (
        first[0] + x.start * grid.pixel_mm,
        first[1] + y.start * grid.pixel_mm,
        first[2] - z.start * grid.spacing_mm,
    )
    return Grid((z.stop - z.start, y.stop - y.start, x.stop - x.start), grid.spacing_mm, grid.pixel_mm, origin)
