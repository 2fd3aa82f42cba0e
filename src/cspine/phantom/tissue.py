"""Everything of the neck that is not bone: skin, fat, muscles, airway, spinal canal, vessels, thyroid."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit
from numpy.typing import ArrayLike
from scipy.interpolate import PchipInterpolator

from cspine.phantom.canvas import Canvas
from cspine.phantom.muscles import choose, draw_muscles, muscle_hu
from cspine.phantom.solids import ellipse_distance, noise_at
from cspine.phantom.spine import Spine

# Half width, front and back half depth of the body in mm, and half axes of the airway, at C1, C2, ... T3.
HALF_WIDTH = (73, 70, 66, 61, 58, 60, 74, 108, 150, 175)
FRONT = (105, 105, 102, 84, 62, 56, 58, 66, 78, 90)
BACK = (86, 80, 74, 70, 70, 73, 76, 80, 84, 88)
AIRWAY_X = (11, 13, 14, 12, 8, 5.5, 8, 8.5, 8.5, 8.5)
AIRWAY_Y = (6, 6.5, 7, 7, 8, 9, 8, 8, 8, 8)
PREVERTEBRAL = (4, 4, 4.5, 5, 8, 11, 12, 12, 12, 12)
PIRIFORM = (0, 0, 0, 2.5, 5, 0, 0, 0, 0, 0)  # half axis of the two sinuses beside the larynx
TABLE_SHARE = 0.7
SOFT_STEP_MM = 2.0  # soft tissue changes slowly along z
TILE = 8
MUSCLE = 1e6  # stands for "not decided yet" among HU


@dataclass(frozen=True)
class Tissue:
    """Columns over z, one row a slice.

    outline: middle x, y, half width, front, back. tubes: x, y, half axes of the airway, then of the canal, then the
    half axis of the piriform sinuses. vessels: (slices, n, 4) x, y, radius, HU. muscles: as `draw_muscles` says.
    plump_mm: how far muscles fill the gaps between them.
    """

    outline: np.ndarray
    tubes: np.ndarray
    vessels: np.ndarray
    muscles: np.ndarray
    muscle_hu: np.ndarray
    plump_mm: float
    fat_mm: float


def paint_tissue(canvas: Canvas, spine: Spine, rng: np.random.Generator) -> None:
    """Fill the canvas with a neck around the spine; fine slices between painted ones are interpolated."""
    tissue = draw_tissue(canvas.grid.z_mm(), spine, rng)
    every, hu = max(1, int(SOFT_STEP_MM / canvas.grid.spacing_mm)), canvas.hu
    _paint_tissue(
        hu,
        every,
        canvas.grid.numbers,
        tissue.outline,
        tissue.tubes,
        tissue.vessels,
        tissue.muscles,
        tissue.muscle_hu,
        tissue.plump_mm,
        tissue.fat_mm,
        canvas.noise,
    )
    for k in range(len(hu)):
        above, below = k - k % every, min(k - k % every + every, len(hu) - 1)
        if above < k < below:
            share = (k - above) / (below - above)
            cv2.addWeighted(hu[above], 1 - share, hu[below], share, 0, hu[k])


def draw_tissue(z_mm: np.ndarray, spine: Spine, rng: np.random.Generator) -> Tissue:
    """The soft parts of one patient on slices at `z_mm`."""
    middle = spine.curve([0.0, *[0.0] * 9])
    levels = np.interp(z_mm, middle[::-1, 2], np.arange(9.0, -1.0, -1.0))
    fat_mm = rng.uniform(3.0, 13.0)
    grow = spine.scale * rng.uniform(0.95, 1.05) + (fat_mm - 7) / 90
    canal_y = [size.canal_y for size in spine.sizes]
    canal_y[0] = 6.0
    canal = spine.curve(canal_y)
    front = spine.curve([-19.5, *[-size.half_depth for size in spine.sizes[1:]]])
    at_level = _interpolator(levels)
    centre = at_level(0.6 * middle[:, :2] + 0.4 * canal[:, :2])
    bumps = [1 + 0.035 * rng.standard_normal(10) for _ in range(3)]
    shape = np.stack([grow * np.array(v) * b for v, b in zip((HALF_WIDTH, FRONT, BACK), bumps, strict=True)], 1)
    airway_y = front[:, 1] - np.array(PREVERTEBRAL) - np.array(AIRWAY_Y) * rng.uniform(0.85, 1.15)
    sizes = np.array([[s.canal_width / 2, s.canal_depth / 2] for s in spine.sizes])
    sizes[0] = 11.0, 9.5
    tubes = np.column_stack(
        [front[:, 0], airway_y, np.array(AIRWAY_X) * rng.uniform(0.8, 1.15), AIRWAY_Y, canal[:, :2], sizes, PIRIFORM]
    )
    muscles, hu = draw_muscles(levels, at_level(canal), grow, rng)
    return Tissue(
        outline=np.column_stack([centre, at_level(shape)]),
        tubes=at_level(tubes),
        vessels=_vessels(levels, at_level(front), rng),
        muscles=muscles,
        muscle_hu=hu,
        plump_mm=rng.uniform(3.0, 8.0),
        fat_mm=fat_mm,
    )


def _interpolator(levels: np.ndarray) -> Callable[[ArrayLike], np.ndarray]:
    """A smooth function from values at C1 to T3 to values on every slice."""

    def at_level(values: ArrayLike) -> np.ndarray:
        return PchipInterpolator(np.arange(10.0), np.asarray(values, float))(levels)

    return at_level


def _vessels(levels: np.ndarray, front: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Carotid and jugular on both sides and lobes of the thyroid; contrast medium in some patients."""
    contrast = rng.uniform(150, 320) if rng.random() < 0.3 else 0.0
    found = []
    for sign in (-1, 1):
        wander = rng.uniform(0, 6, 2)
        for x, y, radius, hu in ((24, -8, 3.4, 45 + contrast), (31, -4, 5.0, 42 + 0.8 * contrast)):
            dx = 2.0 * np.sin(levels * 0.8 + wander[0])
            dy = 2.5 * np.sin(levels * 0.6 + wander[1])
            grow = 1 + 0.15 * np.sin(levels * 1.3 + wander[1])
            columns = front[:, 0] + sign * x + dx, front[:, 1] + y + dy, radius * grow, np.full(len(levels), hu)
            found.append(np.stack(columns, 1))
        lobe = 8.0 * np.sqrt(np.clip(1 - ((levels - 6.2) / 1.2) ** 2, 0, 1))
        gland = np.full(len(levels), rng.uniform(95, 125))
        found.append(np.stack([front[:, 0] + sign * 16, front[:, 1] - 16, lobe, gland], 1))
    return np.stack(found, 1)


def paint_table(canvas: Canvas, spine: Spine, rng: np.random.Generator) -> None:
    """The curved head holder behind the patient: two thin plates with foam between, the same on every slice."""
    there, lift, radius = rng.random() < TABLE_SHARE, rng.uniform(0, 6), rng.uniform(160, 320)
    if not there:
        return
    grid = canvas.grid
    x = grid.origin[0] + grid.pixel_mm * np.arange(grid.shape[2]) - spine.frames[1].origin[0]
    y = grid.origin[1] + grid.pixel_mm * np.arange(grid.shape[1]) - spine.frames[1].origin[1]
    back = 1.12 * spine.scale * max(BACK[:4]) + 8.0 + lift
    below = y[:, None] - (back - radius + np.sqrt(np.maximum(radius**2 - x[None] ** 2, 0)))
    plate = np.minimum(abs(below), abs(below - 14.0)) < 0.5 * max(1.6, grid.pixel_mm)
    table = np.where(plate, -250.0, np.where((below > 0) & (below < 14), -940.0, -1000.0)).astype(np.float32)
    for image in canvas.hu:
        np.maximum(image, table, out=image)


@njit(cache=True, fastmath=True)
def _swerve(x, y, wz, side, noise, swerve):
    """How far, in mm (x, y), the seams swerve at the four corners of a tile: (row, column, 2)."""
    for j in range(2):
        for i in range(2):
            u, v, w = (x + i * side) / 11.0, (y + j * side) / 11.0, wz / 17.0
            swerve[j, i, 0] = 2.2 * noise_at(noise, u, v, w)
            swerve[j, i, 1] = 2.2 * noise_at(noise, u + 20.0, v, w)


@njit(cache=True, fastmath=True)
def _tube(x, y, wz, tube, vessels, step, noise):
    """HU at a point in the airway, the canal or a vessel; MUSCLE elsewhere."""
    air = ellipse_distance(x - tube[0], y - tube[1], 0.0, tube[2], tube[3], 99.0)
    if tube[8] > 0.5:
        beside = ellipse_distance(abs(x - tube[0]) - 13.0, y - tube[1] - 3.0, 0.0, tube[8], 0.6 * tube[8], 99.0)
        air = min(air, beside)
    if air < 6.0:
        air += 1.1 * noise_at(noise, x / 5.0, y / 5.0, wz / 6.0)
    if air < 3.0:
        share = min(max(0.5 - air / step, 0.0), 1.0)
        return 45.0 * (1 - share) - 1000.0 * share
    canal = ellipse_distance(x - tube[4], y - tube[5], 0.0, tube[6], tube[7], 99.0)
    if canal < 0.0:
        cord = ellipse_distance(x - tube[4], y - tube[5], 0.0, 0.58 * tube[6], 0.55 * tube[7], 99.0)
        if cord < 0:
            return 38.0
        return 12.0 if canal < -1.2 else -30.0
    if canal < 3.0:
        return -70.0
    for v in range(vessels.shape[0]):
        if math.hypot(x - vessels[v, 0], y - vessels[v, 1]) < vessels[v, 2]:
            return vessels[v, 3]
    return MUSCLE


@njit(cache=True, fastmath=True)
def _near_tube(x, y, reach, tube, vessels):
    """Whether a circle touches the airway (with its wall), the canal or a vessel."""
    for t in range(0, 8, 4):
        if math.hypot(x - tube[t], y - tube[t + 1]) < reach + max(tube[t + 2], tube[t + 3], 4.0 * tube[8]) + 6.0:
            return True
    for v in range(vessels.shape[0]):
        if math.hypot(x - vessels[v, 0], y - vessels[v, 1]) < reach + vessels[v, 2]:
            return True
    return False


@njit(cache=True, fastmath=True)
def _paint_tissue(hu, every, numbers, outline, tubes, vessels, muscles, hu_of, plump, fat_mm, noise):
    """Paint the last and each `every`-th slice tile by tile: a voxel asks only for what can lie in its tile."""
    step = numbers[4]
    reach = 0.71 * TILE * step
    half = 0.5 * TILE * step
    chosen = np.empty(muscles.shape[1], np.int64)
    swerve = np.empty((2, 2, 2))
    for k in range(hu.shape[0]):
        if k % every and k < hu.shape[0] - 1:
            continue
        shape = outline[k]
        for j in range(0, hu.shape[1], TILE):
            for i in range(0, hu.shape[2], TILE):
                x, y = numbers[0] + i * step + half, numbers[1] + j * step + half
                outside = _outside(x, y, shape)
                if outside > reach + 14.0:
                    continue
                _swerve(x - half, y - half, numbers[2] - k * numbers[3], 2.0 * half, noise, swerve)
                aside_x, aside_y = np.mean(swerve[:, :, 0]), np.mean(swerve[:, :, 1])
                # Within a tile the seams swerve by no more than about 2 mm from their mean.
                count = choose(x + aside_x, y + aside_y, reach + 2.0, plump, muscles[k], chosen)
                here = (muscles[k], hu_of, plump, chosen[:count], swerve)
                inner = outside < -2.0 * fat_mm - 12.0 - 1.5 * reach
                hollow = _near_tube(x, y, reach, tubes[k], vessels[k])
                _tile(hu, numbers, (k, j, i), shape, tubes[k], vessels[k], here, fat_mm, noise, inner, hollow)


@njit(cache=True, fastmath=True)
def _outside(x, y, shape):
    """Distance to the outline of the body, negative inside."""
    depth = shape[3] if y < shape[1] else shape[4]
    return ellipse_distance(x - shape[0], y - shape[1], 0.0, shape[2], depth, 999.0)


@njit(cache=True, fastmath=True)
def _between(corners, across, down):
    """Bilinear interpolation between the four corners of a tile."""
    top = corners[0, 0] + across * (corners[0, 1] - corners[0, 0])
    return top + down * (corners[1, 0] + across * (corners[1, 1] - corners[1, 0]) - top)


@njit(cache=True, fastmath=True)
def _tile(hu, numbers, corner, shape, tube, vessels, muscles, fat_mm, noise, inner, hollow):
    """Paint one tile; `inner` tiles lie under the fat, only `hollow` ones hold airway, canal or vessels."""
    k, step = corner[0], numbers[4]
    wz = numbers[2] - k * numbers[3]
    ellipses, hu_of, plump, chosen, swerve = muscles
    for j in range(corner[1], min(corner[1] + TILE, hu.shape[1])):
        y = numbers[1] + j * step
        for i in range(corner[2], min(corner[2] + TILE, hu.shape[2])):
            x = numbers[0] + i * step
            share, value = 1.0, MUSCLE
            if not inner:
                d = _outside(x, y, shape) + 2.2 * noise_at(noise, x / 28.0, y / 28.0, wz / 28.0)
                share = min(max(0.5 - d / step, 0.0), 1.0)
                if share <= 0:
                    continue
                fat = fat_mm * (0.7 + 1.1 * max(y - shape[1], 0.0) / shape[4])
                if d > -1.6:
                    value = 30.0
                elif d > -1.6 - fat:
                    value = -100.0 + 12.0 * noise_at(noise, x / 4.0, y / 4.0, wz / 4.0)
            if hollow and value == MUSCLE:
                value = _tube(x, y, wz, tube, vessels, step, noise)
            if value == MUSCLE:
                across, down = (i - corner[2]) / TILE, (j - corner[1]) / TILE
                sx = _between(swerve[:, :, 0], across, down)
                sy = _between(swerve[:, :, 1], across, down)
                value = muscle_hu(x, y, sx, sy, ellipses, hu_of, plump, chosen, step)
            hu[k, j, i] = share * value - 1000.0 * (1 - share)
