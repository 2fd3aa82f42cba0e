"""How a crack bends the space that a vertebra is painted in: gap, displaced fragment, crushed bone, and its truth.

A crack is a row of CRACK_SIZE numbers in the millimetres of the vertebra's frame. PLANE: a rough surface through bone.
1-3 a point on it, 4-6 unit normal towards the fragment, 7 gap, 8-10 shift and 11-13 turn (rotation vector, rad, about
the point) of the fragment, 14-16 centre and 17 radius of the ball outside which nothing moves, 18 width over which the
movement fades at the ball's edge, 19 roughness, 20 id in the truth, 21 1 if it stands on both sides (mirrored in x),
22-24 share of the gap gained per mm along this direction, 25 least share of the gap (0: the crack ends within the
bone). CRUSH: a body that lost height. 1 bottom, 2 top, 3 share of the height lost in front, 8 half width, 9 half depth,
10 the back's part of the loss, 19, 20 as above, 4-6 (0, 0, 1). 26: see `fit_to_grid`.
"""

import math

import numpy as np
from numba import njit

from cspine.phantom.solids import noise_at, solid_distance

CRACK_SIZE = 27
PLANE, CRUSH = 0.0, 1.0
MARROW_HU = 65.0  # of the blood in a gap
CRUSHED_MM, CRUSHED_HU = 5.0, 230.0


def fit_to_grid(cracks: np.ndarray, axes: np.ndarray, spacing_mm: float, pixel_mm: float) -> np.ndarray:
    """Fill 26: what a voxel of this size measures across each crack, in mm.

    Over this width the edges of the gap are blurred, and at least this width is marked as truth, so that no crack
    passes unmarked between the centres of voxels.
    """
    fitted = cracks.copy()
    fitted[:, 26] = np.abs(cracks[:, 4:7] @ axes) @ np.array([pixel_mm, pixel_mm, spacing_mm])
    return fitted


def cut_area_mm2(crack: np.ndarray, solid: np.ndarray) -> float:
    """The area of bone that a PLANE crack passes through, before roughness; `solid` holds its primitives as rows."""
    normal = crack[4:7]
    first = np.cross(normal, [1.0, 0.0, 0.0] if abs(normal[0]) < 0.8 else [0.0, 1.0, 0.0])
    first /= np.linalg.norm(first)
    second = np.cross(normal, first)
    steps = np.arange(-crack[17], crack[17] + 1.0)
    u, v = (grid.ravel()[:, None] for grid in np.meshgrid(steps, steps))
    middle = crack[14:17] - ((crack[14:17] - crack[1:4]) @ normal) * normal
    points = middle + u * first + v * second
    points = points[np.linalg.norm(points - crack[14:17], axis=1) < crack[17] - 1.0]
    opened = 0.7 + (points - crack[1:4]) @ crack[22:25] > 0 if crack[25] <= 0 else np.ones(len(points), bool)
    return float(_count_inside(points[opened], solid))


@njit(cache=True, fastmath=True)
def _count_inside(points, solid):
    count = 0
    for p in range(points.shape[0]):
        count += solid_distance(points[p, 0], points[p, 1], points[p, 2], solid) < 0.0
    return count


@njit(cache=True, fastmath=True)
def smooth_step(t):
    t = min(max(t, 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)


@njit(cache=True, fastmath=True)
def bend(x, y, z, cracks, noise):
    """Where the bone at a point was before it broke, the share of the voxel that is gap, the crack's id, extra HU."""
    gap, hit, extra = 0.0, 0.0, 0.0
    for i in range(cracks.shape[0]):
        if cracks[i, 0] == CRUSH:
            x, y, z, cover, mark, more = _crush(x, y, z, cracks[i], noise)
            extra += more
        else:
            x, y, z, cover, mark = _break(x, y, z, cracks[i], noise, 9.0 * i)
        gap = max(gap, cover)
        if mark > 0.0:
            hit = mark
    return x, y, z, gap, hit, extra


@njit(cache=True, fastmath=True)
def _break(x, y, z, crack, noise, shuffle):
    mirror = -1.0 if crack[21] > 0.0 and x < 0.0 else 1.0
    bx, by, bz = mirror * x - crack[14], y - crack[15], z - crack[16]
    inside = crack[17] - math.sqrt(bx * bx + by * by + bz * bz)
    if inside <= 0.0:
        return x, y, z, 0.0, 0.0
    px, py, pz = mirror * x - crack[1], y - crack[2], z - crack[3]
    # Rough at two scales: the course of the crack, and the grain of the broken face.
    rough = noise_at(noise, x / 5.0 + shuffle, y / 5.0, z / 5.0) + 0.6 * noise_at(noise, x / 1.4, y / 1.4, z / 1.4)
    side = px * crack[4] + py * crack[5] + pz * crack[6] + crack[19] * rough
    opened = 0.7 + px * crack[22] + py * crack[23] + pz * crack[24]
    opened += 0.18 * noise_at(noise, x / 4.0, y / 4.0 + shuffle, z / 4.0)
    width = crack[7] * min(max(opened, crack[25]), 1.0) * smooth_step(inside / 3.0)
    away = abs(side - 0.5 * width)
    cover, hit = 0.0, 0.0
    if width > 0.0:
        cover = min(max((0.5 * width + 0.5 * crack[26] - away) / crack[26], 0.0), min(1.0, width / crack[26]))
        if away <= 0.5 * max(width, crack[26]):
            hit = crack[20]
    if side > 0.0:
        moved = smooth_step(inside / crack[18])
        apart = min(width, side)
        sx = moved * (crack[8] + crack[12] * pz - crack[13] * py) + apart * crack[4]
        sy = moved * (crack[9] + crack[13] * px - crack[11] * pz) + apart * crack[5]
        sz = moved * (crack[10] + crack[11] * py - crack[12] * px) + apart * crack[6]
        x, y, z = x - mirror * sx, y - sy, z - sz
    return x, y, z, cover, hit


@njit(cache=True, fastmath=True)
def _crush(x, y, z, crack, noise):
    bottom, top, deep = crack[1], crack[2], crack[9]
    front = min(max((deep - y) / (2.0 * deep), 0.0), 1.0)
    lost = crack[3] * (crack[10] + (1.0 - crack[10]) * front)
    lost *= smooth_step((crack[8] + 3.0 - abs(x)) / 3.0) * smooth_step((deep + 1.0 - y) / 4.0)
    lost *= 1.0 + 0.3 * crack[19] * noise_at(noise, x / 4.0, y / 4.0, 40.0)
    if z <= bottom or lost <= 0.02:
        return x, y, z, 0.0, 0.0, 0.0
    z = bottom + (z - bottom) / (1.0 - min(lost, 0.7))
    # What is pressed down gives way to the front.
    y *= 1.0 - 0.4 * lost * smooth_step((z - bottom) / (top - bottom)) * smooth_step(-y / deep)
    below = top - z + crack[19] * noise_at(noise, x / 3.0, y / 3.0, 20.0)
    if below < -3.0 or below > CRUSHED_MM + 2.0 or abs(x) > crack[8] or abs(y) > deep + 1.0:
        return x, y, z, 0.0, 0.0, 0.0
    strength = min(lost / 0.15, 1.0)
    extra = CRUSHED_HU * strength * smooth_step((CRUSHED_MM + 1.0 - below) / 2.5)
    line = 0.6 + 0.5 * noise_at(noise, x / 5.0, y / 5.0, 10.0)
    cover = 0.8 * strength * min(max(line, 0.0), 1.0) * min(max(1.5 - abs(below - CRUSHED_MM) / 0.5, 0.0), 1.0)
    hit = crack[20] if lost > 0.05 and below < max(CRUSHED_MM + 0.5, crack[26]) else 0.0
    return x, y, z, cover, hit, extra
