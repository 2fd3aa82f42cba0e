"""The muscles and glands of the neck: ellipses on every slice, with thin fat where they meet."""

import math

import numpy as np
from numba import njit

FAT_HU = -95.0
# The left side at C1 | C3 | C5 | C7 | T2: x, y in mm from the middle of the canal, half axes in mm, and the angle in
# degrees by which the first axis turns from left towards the back. A half axis of 0 is absence.
TABLE = """
multifidus        10  24   9   6 -35 | 10  24   9 6.5 -30 | 10  26  10   7 -30 | 11  28  11   8 -25 | 12  28  12   9 -20
oblique           19  17  13 5.5  25 | 17  17   7   4   0 | 19  18   6   4   0 | 21  20   6   4   0 | 22  22   7   5   0
semispinalis      14  40  13   6 -10 | 14  38  14 6.5 -10 | 13  40  13   6 -10 | 13  42  11   5  -5 | 14  40  10   4   0
longissimus       32  20   7   4 -40 | 28  26   7   4 -45 | 28  28   7 4.5 -40 | 28  30   8   5 -30 | 28  32   9   6 -20
splenius          34  36  17 4.5 -50 | 27  41  20 4.5 -40 | 24  45  20   4 -35 | 20  48  16 3.5 -20 | 18  46  12   3 -10
trapezius         20  56  15 2.5 -20 | 22  53  22   3 -28 | 26  54  28   4 -25 | 40  52  42   6 -18 | 52  50  52   7 -12
levator           33   8   5   5   0 | 37  17   8 6.5 -60 | 40  20   9   7 -60 | 46  28  10   7 -45 | 62  34  12   7 -30
scalene medius    28   4   3   3   0 | 30   3   6   5  60 | 33   2   8 6.5  60 | 36   2   9   8  60 | 46   2   9   8  60
scalene anterior  24  -8   0   0   0 | 25  -9   4   3   0 | 26 -13   6 4.5  30 | 30 -20   7   5  30 | 40 -26   7   5  30
longus             8 -29   8 3.5  10 |  9 -25   8 3.2  12 | 10 -25   7   3  15 | 11 -26   6 2.8  15 | 12 -27   5 2.5  15
sternomastoid     55  18  11   5 -70 | 48  -2  14   6 -65 | 42 -22  15   6 -50 | 30 -44  14   5 -25 | 20 -58   9   4   0
straps            12 -60   0   0   0 |  9 -62   5   2   0 | 11 -58   9 2.5  20 | 13 -52  11 2.5  20 | 14 -54  10 2.5  15
tongue            11 -72  11  28   0 | 10 -74  10  22   0 |  8 -64   0   0   0 |  8 -62   0   0   0 |  8 -62   0   0   0
mylohyoid         27 -76   4  20  15 | 25 -74 3.5  18  15 | 24 -64   0   0   0 | 24 -62   0   0   0 | 24 -62   0   0   0
pterygoid         37 -38  14   6  65 | 36 -46   9   5  60 | 34 -46   0   0   0 | 34 -46   0   0   0 | 34 -46   0   0   0
masseter          54 -56  15   6  70 | 50 -60  12   5  70 | 46 -58   0   0   0 | 46 -58   0   0   0 | 46 -58   0   0   0
digastric         40  -8   6 3.5  70 | 36 -30   6 3.5  60 | 22 -54   5   3  30 | 22 -54   0   0   0 | 22 -54   0   0   0
constrictor       15 -33   7 2.2  20 | 16 -34   7 2.2  40 | 14 -36   7 2.5  50 | 10 -36   6 2.5  30 |  5 -33   6   3   0
parotid           52 -22  15   8  75 | 44 -24   7   5  75 | 42 -24   0   0   0 | 42 -24   0   0   0 | 42 -24   0   0   0
submandibular     33 -50   0   0   0 | 33 -54  13   7  60 | 28 -52   4   3  60 | 28 -52   0   0   0 | 28 -52   0   0   0
shoulder          60  20   0   0   0 | 60  20   0   0   0 | 62  24   0   0   0 | 80  18  18   9 -20 | 98   8  34  17 -10
serratus          50  30   0   0   0 | 50  30   0   0   0 | 50  34   0   0   0 | 44  40   9   4 -20 | 52  38  20   6 -25
pectoral          50 -50   0   0   0 | 50 -50   0   0   0 | 50 -50   0   0   0 | 52 -34   0   0   0 | 70 -52  34   7  15
deltoid          120   0   0   0   0 |120   0   0   0   0 |120   0   0   0   0 |124   2  10   8   0 |146  -6  16  30   0
"""
NAME_WIDTH = 17
GLANDS = {"parotid": -5.0, "submandibular": 35.0}


def draw_muscles(
    levels: np.ndarray, canal: np.ndarray, grow: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Muscles and glands of both sides on every slice, and their HU; about symmetric.

    The rows (slices, m, 7) hold x, y, the quadratic form of the ellipse, its scale in mm (0: absent), and how fast
    `muscle_distance` can grow. `levels` are the slices' places on the scale 0 (C1) to 9 (T3), `canal` (slices, 2) x, y.
    """
    names = [line[:NAME_WIDTH].strip() for line in TABLE.strip().splitlines()]
    rows = [line[NAME_WIDTH:].split("|") for line in TABLE.strip().splitlines()]
    table = np.array([[level.split() for level in row] for row in rows], float)
    bulk = rng.uniform(0.88, 1.12)
    found = []
    for side in (1.0, -1.0):
        own = table + rng.normal(0, 1, table.shape) * (1.0, 1.0, 0.0, 0.0, 4.0)
        own[:, :, :2] += rng.normal(0, 1.0, (len(table), 1, 2))
        own[:, :, 2:4] *= bulk * rng.uniform(0.9, 1.1, (len(table), 1, 1))
        own[:, :, :4] *= grow
        own[:, :, 4] = np.radians(own[:, :, 4])
        over = _columns_over(levels, own)
        x, y, a, b, angle = np.moveaxis(over, -1, 0)
        placed = canal[:, :1] + side * x, canal[:, 1:2] + y
        found.append(np.stack([*placed, *_ellipse(a, b, side * angle)], -1))
    hu = rng.normal(56, 4, len(table)) - 35 * (rng.random(len(table)) < 0.06)
    hu = np.array([GLANDS.get(name, value) for name, value in zip(names, hu, strict=True)])
    return np.concatenate(found, 1), np.tile(hu, 2)


def _ellipse(a: np.ndarray, b: np.ndarray, angle: np.ndarray) -> list[np.ndarray]:
    """The form (xx, xy, yy) whose root is 1 on the ellipse, its scale, and the steepness; a scale of 0 is absence."""
    there = np.minimum(a, b) > 0.8
    a, b = np.where(there, a, 1.0), np.where(there, b, 1.0)
    c, s = np.cos(angle), np.sin(angle)
    form = [c**2 / a**2 + s**2 / b**2, 2 * c * s * (1 / a**2 - 1 / b**2), s**2 / a**2 + c**2 / b**2]
    return [*form, np.where(there, np.sqrt(a * b), 0.0), np.sqrt(np.maximum(a / b, b / a))]


def _columns_over(levels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """(muscles, 5 levels, columns) interpolated to (slices, muscles, columns)."""
    known = np.array([0.0, 2.0, 4.0, 6.0, 8.0])
    return np.array([[np.interp(levels, known, column) for column in muscle.T] for muscle in table]).transpose(2, 0, 1)


@njit(cache=True, fastmath=True)
def muscle_distance(x, y, muscle):
    """How far a point lies outside a muscle, in mm of its mean half axis; negative inside, far where it is absent."""
    if muscle[5] <= 0.0:
        return 1e3
    dx, dy = x - muscle[0], y - muscle[1]
    return (math.sqrt(muscle[2] * dx * dx + muscle[3] * dx * dy + muscle[4] * dy * dy) - 1.0) * muscle[5]


@njit(cache=True, fastmath=True)
def muscle_hu(x, y, swerve_x, swerve_y, muscles, hu, plump, chosen, step):
    """HU of muscle and the fat between muscles at a point; `chosen` are the muscles that matter here."""
    x, y = x + swerve_x, y + swerve_y
    first, second, which = 1e3, 1e3, -1
    for m in chosen:
        d = muscle_distance(x, y, muscles[m])
        if d < first:
            second, first, which = first, d, m
        elif d < second:
            second = d
    if which < 0:
        return FAT_HU
    width = max(0.45 + 0.25 * swerve_x, 0.0)
    seam = min(max((width + 0.5 * step - 0.5 * (second - first)) / step, 0.0), min(1.0, 2.0 * width / step))
    fat = max(min(max(0.5 + (first - plump) / step, 0.0), 1.0), seam)
    return hu[which] * (1 - fat) + FAT_HU * fat


@njit(cache=True, fastmath=True)
def choose(x, y, reach, plump, muscles, chosen):
    """Write the muscles that can matter within `reach` of a point to `chosen`; how many."""
    first, second = 1e3, 1e3
    for m in range(muscles.shape[0]):
        d = muscle_distance(x, y, muscles[m]) + reach * muscles[m, 6]
        if d < first:
            second, first = first, d
        elif d < second:
            second = d
    count = 0
    for m in range(muscles.shape[0]):
        nearest = muscle_distance(x, y, muscles[m]) - reach * muscles[m, 6]
        if nearest <= second and nearest <= plump + 4.0:
            chosen[count] = m
            count += 1
    return count
