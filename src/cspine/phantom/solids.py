"""Solids as unions of implicit primitives, painted into a CT volume with numba.

A primitive is a row of PRIMITIVE_SIZE numbers in the millimetres of its solid's own frame (x left, y posterior, z up):
0 kind, 1 +1 adds / -1 cuts, 2 blend radius, 3-5 centre, 6-14 axes u, v, w, 15 length along w, 16-17 radii at the start,
18-19 radii at the end, 20 cap radius or rounding, 21-23 extra, 24 bounding radius. Distances are the usual first-order
approximations of signed distances (negative inside), after Quilez, iquilezles.org/articles/distfunctions.
"""

import math
from itertools import pairwise

import numpy as np
from numba import njit

PRIMITIVE_SIZE = 25
BEAM, BOX, BODY, SHELL, CANAL = 0.0, 1.0, 2.0, 3.0, 4.0

Vector = tuple[float, float, float]


def beam(
    start: Vector,
    end: Vector,
    radii: tuple[float, float],
    end_radii: tuple[float, float] | None = None,
    up: Vector = (0.0, 0.0, 1.0),
    blend: float = 1.5,
    cut: bool = False,
) -> np.ndarray:
    """A rod with elliptic section: `radii` are (across, along `up`), in mm, at the start and at the end."""
    w = np.subtract(end, start)
    length = float(np.linalg.norm(w))
    w = w / length
    v = np.asarray(up, float)
    if abs(v @ w) > 0.95:
        v = np.array([0.0, 1.0, 0.0])
    v = v - (v @ w) * w
    v /= np.linalg.norm(v)
    last = end_radii or radii
    row = _row(BEAM, start, np.stack([np.cross(v, w), v, w]), blend, cut)
    row[15:21] = length, *radii, *last, min(*radii, *last)
    row[24] = length + max(*radii, *last)
    return row


def ellipsoid(
    centre: Vector, radii: Vector, axes: np.ndarray | None = None, blend: float = 1.5, cut: bool = False
) -> np.ndarray:
    row = _row(BEAM, centre, np.eye(3) if axes is None else axes, blend, cut)
    row[15:21] = 0.0, radii[0], radii[1], radii[0], radii[1], radii[2]
    row[24] = max(radii)
    return row


def box(
    centre: Vector, half: Vector, rounding: float = 1.5, shear: float = 0.0, blend: float = 1.5, cut: bool = False
) -> np.ndarray:
    """A rounded box; `shear` lowers it by that many mm for every mm further back, as articular pillars are."""
    row = _row(BOX, centre, np.eye(3), blend, cut)
    row[15:18], row[20], row[21] = half, rounding, shear
    row[24] = math.hypot(*half) * (1 + abs(shear))
    return row


def vertebral_body(
    centre: Vector,
    half_height: float,
    bottom: tuple[float, float],
    top: tuple[float, float],
    waist: float = 0.1,
    dish: float = 0.8,
    uncus: float = 0.0,
) -> np.ndarray:
    """A vertebral body: half width and half depth at both ends, dished end plates, uncinate rims `uncus` mm high."""
    row = _row(BODY, centre, np.eye(3), 1.5, False)
    row[15:24] = half_height, *bottom, *top, 1.2, waist, dish, uncus
    row[24] = math.hypot(max(bottom[0], top[0]), max(bottom[1], top[1]), half_height + uncus)
    return row


def shell(centre: Vector, radii: Vector, thickness: float) -> np.ndarray:
    """The wall of an ellipsoid, `thickness` mm."""
    row = _row(SHELL, centre, np.eye(3), 1.0, False)
    row[15:18], row[20] = radii, thickness / 2
    row[24] = max(radii) + thickness
    return row


def canal(centre: Vector, half_width: float, front: float, back: float, rounding: float = 4.0) -> np.ndarray:
    """A cut along z with the rounded triangular section of a spinal canal: flat `front` mm before the centre, its
    corners `half_width` mm to either side, its apex `back` mm behind."""
    row = _row(CANAL, centre, np.eye(3), 1.2, True)
    row[15:18], row[20] = (half_width, front, back), rounding
    row[24] = 1e3
    return row


def chain(points: list[Vector], radii: tuple[float, float], **options: object) -> list[np.ndarray]:
    """Beams of constant section from point to point."""
    return [beam(a, b, radii, **options) for a, b in pairwise(points)]  # type: ignore[arg-type]


def mirrored(primitives: list[np.ndarray]) -> list[np.ndarray]:
    """The primitives and their mirror images in the sagittal plane."""
    both = []
    for row in primitives:
        twin = row.copy()
        twin[[3, 6, 9, 12]] *= -1
        both += [row, twin]
    return both


def bounding_box(primitives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest corner (x, y, z) in mm of what the adding primitives can cover."""
    adding = primitives[primitives[:, 1] > 0]
    # A beam is bounded about its middle; its row bounds it about its start.
    half = np.where(adding[:, 0] == BEAM, adding[:, 15] / 2, 0.0)[:, None]
    middle = adding[:, 3:6] + half * adding[:, 12:15]
    reach = adding[:, 24:25] - half
    return (middle - reach).min(0), (middle + reach).max(0)


def _row(kind: float, centre: Vector, axes: np.ndarray, blend: float, cut: bool) -> np.ndarray:
    row = np.zeros(PRIMITIVE_SIZE)
    row[0], row[1], row[2] = kind, -1.0 if cut else 1.0, blend
    row[3:6] = centre
    row[6:15] = np.asarray(axes, float).ravel()
    return row


@njit(cache=True, fastmath=True)
def noise_at(table, x, y, z):
    """Trilinear look-up in a periodic cube of noise whose side is a power of two; the coordinates count cells."""
    side = table.shape[0] - 1
    i, j, k = math.floor(x), math.floor(y), math.floor(z)
    fx, fy, fz = x - i, y - j, z - k
    i0, j0, k0 = int(i) & side, int(j) & side, int(k) & side
    i1, j1, k1 = (i0 + 1) & side, (j0 + 1) & side, (k0 + 1) & side
    near = (table[i0, j0, k0] * (1 - fz) + table[i0, j0, k1] * fz) * (1 - fy)
    near += (table[i0, j1, k0] * (1 - fz) + table[i0, j1, k1] * fz) * fy
    far = (table[i1, j0, k0] * (1 - fz) + table[i1, j0, k1] * fz) * (1 - fy)
    far += (table[i1, j1, k0] * (1 - fz) + table[i1, j1, k1] * fz) * fy
    return near * (1 - fx) + far * fx


@njit(cache=True, fastmath=True)
def ellipse_distance(x, y, z, a, b, c):
    """First-order distance to an ellipsoid with radii a, b, c."""
    x1, y1, z1 = x / a, y / b, z / c
    k0 = math.sqrt(x1 * x1 + y1 * y1 + z1 * z1)
    if k0 < 1e-6:
        return -min(a, b, c)
    x2, y2, z2 = x1 / a, y1 / b, z1 / c
    return k0 * (k0 - 1.0) / math.sqrt(x2 * x2 + y2 * y2 + z2 * z2)


@njit(cache=True, fastmath=True)
def body_distance(x, y, z, rows, i):
    """Distance to a vertebral body; its section: more an ellipse in front, squarer behind."""
    height = rows[i, 15]
    t = min(max(z / height, -1.0), 1.0)
    narrow = 1.0 - rows[i, 21] * (1.0 - t * t)
    a = (0.5 * (rows[i, 16] + rows[i, 18]) + 0.5 * t * (rows[i, 18] - rows[i, 16])) * narrow
    b = (0.5 * (rows[i, 17] + rows[i, 19]) + 0.5 * t * (rows[i, 19] - rows[i, 17])) * narrow
    x1, y1 = abs(x) / a, abs(y) / b
    x2, y2 = x1 * x1, y1 * y1
    k2, k4 = math.sqrt(x2 + y2), math.sqrt(math.sqrt(x2 * x2 + y2 * y2))
    # Round in front, square behind.
    square = 0.5 + 0.4 * min(max(y / b, -1.0), 1.0)
    side = ((1.0 - square) * k2 + square * k4 - 1.0) * math.sqrt(a * b)
    rim = min(k2 * k2, 1.2)
    top = height - rows[i, 22] * (1.0 - rim)
    if z > 0:
        edge = min(max((x1 - 0.62) / 0.3, 0.0), 1.0)
        top += rows[i, 23] * edge * min(max(1.2 + y / b, 0.0), 1.0)
    cap = abs(z) - top
    rounding = rows[i, 20]
    outer = math.sqrt(max(side + rounding, 0.0) ** 2 + max(cap + rounding, 0.0) ** 2)
    return min(max(side, cap) + rounding, 0.0) + outer - rounding


@njit(cache=True, fastmath=True)
def canal_distance(x, y, rows, i):
    """Distance to a triangular tube along z; the apex is rounded by the hyperbola in x."""
    width, front, back, rounding = rows[i, 15], rows[i, 16], rows[i, 17], rows[i, 20]
    flat = -y - front + rounding
    slope = math.sqrt((front + back) ** 2 + width * width)
    side = (math.sqrt(x * x + 9.0) * (front + back) + (y - back) * width) / slope + rounding
    return min(max(flat, side), 0.0) + math.sqrt(max(flat, 0.0) ** 2 + max(side, 0.0) ** 2) - rounding


@njit(cache=True, fastmath=True)
def primitive_distance(x, y, z, rows, i):
    """Distance in mm from a point of the solid's frame to one primitive."""
    x, y, z = x - rows[i, 3], y - rows[i, 4], z - rows[i, 5]
    kind = rows[i, 0]
    if kind == BODY:
        return body_distance(x, y, z, rows, i)
    if kind == CANAL:
        return canal_distance(x, y, rows, i)
    if kind == SHELL:
        return abs(ellipse_distance(x, y, z, rows[i, 15], rows[i, 16], rows[i, 17])) - rows[i, 20]
    if kind == BOX:
        rounding = rows[i, 20]
        steep = math.sqrt(1.0 + rows[i, 21] * rows[i, 21])
        u = abs(x) - rows[i, 15] + rounding
        v = abs(y) - rows[i, 16] + rounding
        w = (abs(z + rows[i, 21] * y) - rows[i, 17]) / steep + rounding
        outer = math.sqrt(max(u, 0.0) ** 2 + max(v, 0.0) ** 2 + max(w, 0.0) ** 2)
        return outer + min(max(u, v, w), 0.0) - rounding
    u = x * rows[i, 6] + y * rows[i, 7] + z * rows[i, 8]
    v = x * rows[i, 9] + y * rows[i, 10] + z * rows[i, 11]
    w = x * rows[i, 12] + y * rows[i, 13] + z * rows[i, 14]
    length = rows[i, 15]
    t = 0.0
    if length > 0:
        t = min(max(w / length, 0.0), 1.0)
        w -= t * length
    across = rows[i, 16] + t * (rows[i, 18] - rows[i, 16])
    along = rows[i, 17] + t * (rows[i, 19] - rows[i, 17])
    return ellipse_distance(u, v, w, across, along, rows[i, 20])


@njit(cache=True, fastmath=True)
def solid_distance(x, y, z, rows):
    """Distance in mm to the smooth union (and difference) of primitives, in their order."""
    best = 1e3
    for i in range(rows.shape[0]):
        dx, dy, dz = x - rows[i, 3], y - rows[i, 4], z - rows[i, 5]
        away = math.sqrt(dx * dx + dy * dy + dz * dz) - rows[i, 24]
        blend = rows[i, 2]
        # A beam's bounding sphere is about its start, so it only ever overestimates the reach: skipping stays safe.
        if away > blend + 1.0 and (rows[i, 1] < 0 or away > best + blend):
            continue
        d = primitive_distance(x, y, z, rows, i)
        if rows[i, 1] > 0:
            h = max(blend - abs(best - d), 0.0)
            best = min(best, d) - h * h / (4.0 * blend)
        else:
            h = max(blend - abs(best + d), 0.0)
            best = max(best, -d) + h * h / (4.0 * blend)
    return best
