"""Crops about the places of fractures, from patients with and without one, scanned finely and coarsely."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from cspine.phantom.anatomy import draw_patient, render, vertebrae
from cspine.phantom.canvas import Grid
from cspine.phantom.fractures import cracks_by_level, draw_fracture, kinds_of
from cspine.phantom.labels import LEVEL_WEIGHTS
from cspine.phantom.scanner import draw_scanner, scan
from cspine.windows import window_hu

SAMPLINGS_MM = (0.5, 2.0)
CROP_MM, SIZE_PX, JITTER_MM = 20.0, 40, 1.5
SLICES = 5  # of each view, 1 mm apart or the sampling where that is wider


@dataclass(frozen=True)
class Sample:
    """One patient's crop: views (axial, coronal, sagittal; slices; y, x) in uint8 at each sampling."""

    fractured: bool
    kind: str
    gap_mm: float
    views: tuple[np.ndarray, ...]


def make_samples(patients: int, seed: int, processes: int) -> list[Sample]:
    """The crops of patients 0 to n - 1, the even ones fractured; each depends on the seed and its number alone."""
    make = partial(make_sample, seed)
    first = [make(0, True)]  # compiles the kernels before the processes share them
    rest = range(1, patients)
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        return first + list(pool.map(make, rest, [k % 2 == 0 for k in rest], chunksize=8))


def make_sample(seed: int, index: int, fractured: bool) -> Sample:
    """One patient with, or without, the fracture that was drawn, scanned at every sampling."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng([seed, index])
    spine, bone, seeds = draw_patient(rng)
    level = int(rng.choice(7, p=LEVEL_WEIGHTS / LEVEL_WEIGHTS.sum()))
    weights = kinds_of(spine.sizes[level].name)
    kind = str(rng.choice(list(weights), p=np.array(list(weights.values())) / sum(weights.values())))
    fracture = draw_fracture(kind, level, 1, spine, vertebrae(spine, seeds), rng)
    mirror = rng.choice([-1.0, 1.0]) if fracture.cracks[0][21] else 1.0
    place = spine.frames[level].to_world(fracture.place * (mirror, 1.0, 1.0))
    place += rng.uniform(-JITTER_MM, JITTER_MM, 3)
    cracks = cracks_by_level([fracture]) if fractured else {}
    views = []
    for sampling in SAMPLINGS_MM:
        scan_rng = np.random.default_rng([seed, index, round(1000 * sampling)])
        grid = _grid_about(place, sampling)
        canvas = render(grid, spine, bone, seeds, cracks)
        views.append(_views(scan(canvas.hu, grid, sampling, draw_scanner(scan_rng), scan_rng), sampling))
    return Sample(fractured, kind, fracture.gap_mm, tuple(views))


def _grid_about(place: np.ndarray, sampling_mm: float) -> Grid:
    count = round(CROP_MM / sampling_mm)
    x, y, z = place + np.array([-1.0, -1.0, 1.0]) * (CROP_MM - sampling_mm) / 2
    return Grid((count, count, count), sampling_mm, sampling_mm, (float(x), float(y), float(z)))


def _views(hu: np.ndarray, sampling_mm: float) -> np.ndarray:
    """Slices through the middle in the three directions, enlarged to SIZE_PX, (3, slices, y, x) uint8."""
    low, high = window_hu("bone")
    grey = (np.clip((hu.astype(np.float32) - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    step = max(1, round(1.0 / sampling_mm))
    places = [len(hu) // 2 + step * (k - SLICES // 2) for k in range(SLICES)]
    views = [np.moveaxis(grey, axis, 0)[places] for axis in range(3)]
    size = (SIZE_PX, SIZE_PX)
    return np.stack([[cv2.resize(image, size, interpolation=cv2.INTER_CUBIC) for image in view] for view in views])
