"""Single levels of phantoms, drawn for pre-training: each of another patient, half of them fractured, as the cache has.

A study takes seconds and shows few fractures; a level alone is drawn in a fifth of a second, with the truth of every
voxel. All else is drawn as for a study: patient, fractures, scanner, field of view.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from cspine.anatomy import LEVELS
from cspine.config import Preprocess
from cspine.data.geometry import Geometry
from cspine.data.grown_map import FULL_SHARE
from cspine.data.level_cells import SliceTruth
from cspine.data.level_crops import LevelPlace, find_levels
from cspine.level_maps import level_map
from cspine.phantom.acquisition import FIELD_MM, FIELD_RANGE_MM, FIELD_SPREAD
from cspine.phantom.anatomy import draw_patient, render, vertebrae
from cspine.phantom.canvas import Canvas, Grid
from cspine.phantom.fractures import cracks_by_level, draw_fractures
from cspine.phantom.labels import LEVEL_WEIGHTS
from cspine.phantom.scanner import draw_scanner, scan
from cspine.windows import window_hu

# Around a vertebra: a square, its middle behind that of the body, and how far above and below the body's middle.
SIDE_MM, BEHIND_MM = 112.0, 14.0
ABOVE_MM = {"C1": 18.0, "C2": 36.0}
BELOW_MM = {"C1": 18.0, "C7": 34.0}
USUAL_ABOVE_MM, USUAL_BELOW_MM = 20.0, 28.0
MAP_VOXEL_MM = 4.0  # as of vertebra/volume
BODY_SHIFT_MM = 4.0


@dataclass(frozen=True)
class Sampling:
    """How the levels are scanned: the matrix of a whole field of view, and the distance of slices."""

    matrix: int = 512
    spacing_mm: float = 0.8


@dataclass(frozen=True, eq=False)
class SingleLevel:
    """A stack of one level as the cache would hold it, and what is true of it."""

    uid: str
    volume: np.ndarray  # uint8 (z, windows, y, x), SIDE_MM wide
    geometry: Geometry
    place: LevelPlace
    fractured: bool
    truth: SliceTruth


def draw_level_alone(seed: int, settings: Preprocess, sampling: Sampling, index: int) -> SingleLevel:
    """One level of one patient, its pixels as large as those of the cache under `settings`."""
    cv2.setNumThreads(1)
    rng, scan_rng = (np.random.default_rng([seed, index, stream]) for stream in range(2))
    spine, bone, seeds = draw_patient(rng)
    level = int(rng.choice(len(LEVELS), p=LEVEL_WEIGHTS / LEVEL_WEIGHTS.sum()))
    fractures = draw_fractures((level,), spine, vertebrae(spine, seeds), rng)
    fractured = index % 2 == 0
    grid = _grid_about(spine.frames[level].origin + rng.uniform(-1, 1, 3) * BODY_SHIFT_MM, level, sampling, rng)
    canvas = render(grid, spine, bone, seeds, cracks_by_level(fractures) if fractured else {})
    thickness_mm = sampling.spacing_mm * float(rng.choice([1.0, 1.25, 1.5]))
    hu = scan(canvas.hu, grid, thickness_mm, draw_scanner(scan_rng), scan_rng)
    place = _place(canvas, level)
    assert settings.field_mm is not None
    size_px = round(SIDE_MM * settings.size_px / settings.field_mm)
    volume = np.stack([_windowed(hu, window, size_px) for window in settings.windows], axis=1)
    return SingleLevel(f"{seed}.{index}", volume, _geometry(grid), place, fractured, _truth(canvas))


def _grid_about(body: np.ndarray, level: int, sampling: Sampling, rng: np.random.Generator) -> Grid:
    field_mm = float(np.clip(FIELD_MM * np.exp(FIELD_SPREAD * rng.standard_normal()), *FIELD_RANGE_MM))
    pixel_mm, name = field_mm / sampling.matrix, LEVELS[level]
    count = round(SIDE_MM / pixel_mm)
    above, below = ABOVE_MM.get(name, USUAL_ABOVE_MM), BELOW_MM.get(name, USUAL_BELOW_MM)
    half_mm = (count - 1) * pixel_mm / 2
    corner = body + np.array([-half_mm, BEHIND_MM - half_mm, above])
    planes = int((above + below) / sampling.spacing_mm) + 1
    x, y, z = (float(value) for value in corner)
    return Grid((planes, count, count), sampling.spacing_mm, pixel_mm, (x, y, z))


def _place(canvas: Canvas, level: int) -> LevelPlace:
    """Where the level lies in its square, as stage 1 would map it."""
    mask, z_mm = (canvas.label == level + 1).astype(np.float32), canvas.grid.z_mm()
    side = round(SIDE_MM / MAP_VOXEL_MM)
    coarse = np.stack([cv2.resize(plane, (side, side), interpolation=cv2.INTER_AREA) for plane in mask])
    parts = np.array_split(np.arange(len(z_mm)), max(2, round((z_mm[0] - z_mm[-1]) / MAP_VOXEL_MM)))
    probabilities = np.zeros((len(LEVELS), len(parts), side, side))
    probabilities[level] = np.stack([coarse[part].mean(axis=0) for part in parts])
    # As of a map grown along bone, which is what a head sees of a study.
    found = level_map(
        np.minimum(probabilities / FULL_SHARE, 1), np.array([z_mm[part].mean() for part in parts]), SIDE_MM
    )
    place = find_levels(found, 0.5)[level]
    assert place is not None
    return place


def _truth(canvas: Canvas) -> SliceTruth:
    """The slices that the fracture's voxels reach, and the smallest boxes about them."""
    seen = np.any(canvas.truth > 0, axis=(1, 2))
    boxes_mm = np.full((len(seen), 4), np.nan)
    pixel_mm, middle = canvas.grid.pixel_mm, canvas.truth.shape[-1] / 2
    for z in np.flatnonzero(seen):
        rows, columns = np.nonzero(canvas.truth[z])
        edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        boxes_mm[z] = (np.array(edges) - middle) * pixel_mm
    return SliceTruth(np.asarray(seen, np.int8), boxes_mm)


def _windowed(hu: np.ndarray, window: str, size_px: int) -> np.ndarray:
    """uint8 (z, size, size)."""
    low, high = window_hu(window)
    way = cv2.INTER_AREA if size_px < hu.shape[-1] else cv2.INTER_LINEAR
    small = [cv2.resize(plane.astype(np.float32), (size_px, size_px), interpolation=way) for plane in hu]
    return np.rint(255 * np.clip((np.stack(small) - low) / (high - low), 0, 1)).astype(np.uint8)


def _geometry(grid: Grid) -> Geometry:
    planes = grid.shape[0]
    positions = np.column_stack([np.full(planes, grid.origin[0]), np.full(planes, grid.origin[1]), grid.z_mm()])
    return Geometry(
        file_numbers=np.arange(1, planes + 1),
        positions_mm=positions,
        row_direction=np.array([1.0, 0.0, 0.0]),
        column_direction=np.array([0.0, 1.0, 0.0]),
        pixel_spacing_mm=(grid.pixel_mm, grid.pixel_mm),
        thickness_mm=None,
    )
