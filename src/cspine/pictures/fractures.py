"""The phantom's fractures, one of each type: axial and sagittal, without and with the recorded voxels in red."""

import numpy as np
from matplotlib.figure import Figure

from cspine.anatomy import LEVELS
from cspine.phantom.anatomy import draw_patient, render, vertebrae
from cspine.phantom.canvas import Grid
from cspine.phantom.fractures import Fracture, cracks_by_level, draw_fracture
from cspine.phantom.scanner import draw_scanner, scan
from cspine.pictures.canvas import INK, blank
from cspine.windows import window_hu

PIXEL_MM, SIDE_MM = 0.4, 44.0
RED = np.array([255, 60, 60], np.uint8)
# Every type, at a level where it is common.
SHOWN = {
    "anterior_arch": "C1",
    "posterior_arch": "C1",
    "jefferson": "C1",
    "lateral_mass": "C1",
    "dens_tip": "C2",
    "dens": "C2",
    "dens_base": "C2",
    "hangman": "C2",
    "teardrop": "C5",
    "compression": "C5",
    "burst": "C6",
    "facet": "C6",
    "pedicle": "C5",
    "lamina": "C5",
    "transverse": "C4",
    "spinous": "C7",
}
COLUMNS = 2


def draw_fracture_types(seed: int) -> Figure:
    """A patient a type: four panels each of SIDE_MM, through the slice that shows most of the fracture."""
    rows = -(-len(SHOWN) // COLUMNS)
    figure = Figure((4 * COLUMNS * 1.25, rows * 1.4))
    axes = figure.subplots(rows, 4 * COLUMNS, squeeze=False)
    figure.subplots_adjust(0.003, 0.003, 0.997, 1 - 0.15 / (1.4 * rows), 0.02, 0.12)
    for number, (kind, level) in enumerate(SHOWN.items()):
        fracture, hu, truth = scanned(kind, LEVELS.index(level), np.random.default_rng([seed, number]))
        panels = axes[number // COLUMNS, 4 * (number % COLUMNS) : 4 * (number % COLUMNS) + 4]
        gap = f", gap {fracture.gap_mm:g} mm" if fracture.gap_mm else ""
        for axis, image in zip(panels, views(hu, truth), strict=True):
            axis.imshow(image)
            blank(axis)
        title = f"{level} {kind.replace('_', ' ')}{gap}"
        panels[0].set_title(title, loc="left", fontsize=7, color=INK, pad=2)
    return figure


def scanned(kind: str, level: int, rng: np.random.Generator) -> tuple[Fracture, np.ndarray, np.ndarray]:
    """A fracture in a new patient, and a cube about it: HU and truth, (z, y, x)."""
    spine, bone, seeds = draw_patient(rng)
    fracture = draw_fracture(kind, level, 1, spine, vertebrae(spine, seeds), rng)
    count = round(SIDE_MM / PIXEL_MM)
    x, y, z = spine.frames[level].to_world(fracture.place) + np.array([-1.0, -1.0, 1.0]) * SIDE_MM / 2
    grid = Grid((count, count, count), PIXEL_MM, PIXEL_MM, (float(x), float(y), float(z)))
    canvas = render(grid, spine, bone, seeds, cracks_by_level([fracture]))
    return fracture, scan(canvas.hu, grid, PIXEL_MM, draw_scanner(rng), rng), canvas.truth


def views(hu: np.ndarray, truth: np.ndarray) -> list[np.ndarray]:
    """Axial and sagittal, each without and with the truth in red, uint8 (rows, columns, 3)."""
    low, high = window_hu("bone")
    grey = (np.clip((hu.astype(np.float32) - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    k, i = int((truth > 0).sum((1, 2)).argmax()), int((truth > 0).sum((0, 1)).argmax())
    found = []
    for image, marked in ((grey[k], truth[k] > 0), (grey[:, :, i], truth[:, :, i] > 0)):
        plain = np.repeat(image[..., None], 3, 2)
        found += [plain, np.where(marked[..., None], RED, plain)]
    return found
