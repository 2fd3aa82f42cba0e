"""Fractures: which part of a level breaks and how, as the cracks that `Canvas.paint` bends a vertebra with."""

import math
from dataclasses import dataclass

import numpy as np

from cspine.phantom.canvas import CRACK_SIZE, CRUSH, PLANE
from cspine.phantom.solids import Vector
from cspine.phantom.spine import Spine
from cspine.phantom.vertebrae import Size

# How often each type is drawn at C1, at C2, and at C3 to C7.
TYPES: dict[str, dict[str, float]] = {
    "C1": {"anterior_arch": 3, "posterior_arch": 4, "jefferson": 4, "lateral_mass": 2},
    "C2": {"dens": 5, "dens_base": 4, "hangman": 4, "teardrop": 2, "lamina": 1.5, "transverse": 1},
    "C3": {"facet": 3, "lamina": 2, "transverse": 3, "pedicle": 1.5, "compression": 2.5, "teardrop": 2, "burst": 2},
}
SPINOUS_WEIGHT = {"C3": 0.5, "C4": 0.7, "C5": 1.5, "C6": 4.0, "C7": 6.0}
SECOND_TYPE_SHARE = 0.3


@dataclass(frozen=True)
class Fracture:
    """One fracture; `level` 0 is C1, `number` marks its voxels in the canvas's truth, the gap is 0 for crushed bone."""

    number: int
    level: int
    kind: str
    gap_mm: float
    cracks: tuple[np.ndarray, ...]


def draw_fractures(levels: tuple[int, ...], spine: Spine, rng: np.random.Generator) -> list[Fracture]:
    """One fracture, sometimes two, in each of the levels."""
    found: list[Fracture] = []
    for level in levels:
        size, pitch = spine.sizes[level], spine.pitches[level]
        for kind in _draw_kinds(size.name, rng):
            number = len(found) + 1
            opening = float(np.clip(rng.lognormal(math.log(1.4), 0.38), 0.8, 3.0))
            gap = 0.0 if kind == "compression" else round(opening, 2)
            maker = Maker(size, pitch, gap, number, rng)
            found.append(Fracture(number, level, kind, gap, tuple(getattr(maker, kind)())))
    return found


def cracks_by_level(fractures: list[Fracture]) -> dict[int, np.ndarray]:
    """The rows for `anatomy.render`."""
    return {
        level: np.stack([row for f in fractures if f.level == level for row in f.cracks])
        for level in {f.level for f in fractures}
    }


def _draw_kinds(name: str, rng: np.random.Generator) -> list[str]:
    weights = dict(TYPES.get(name, TYPES["C3"]))
    if name in SPINOUS_WEIGHT:
        weights["spinous"] = SPINOUS_WEIGHT[name]
    chances = np.array(list(weights.values())) / sum(weights.values())
    count = 2 if rng.random() < SECOND_TYPE_SHARE else 1
    return [str(kind) for kind in rng.choice(list(weights), count, replace=False, p=chances)]


class Maker:
    """Makes the cracks of one fracture; every method is a type and returns rows for `Canvas.paint`."""

    def __init__(self, size: Size, pitch_mm: float, gap_mm: float, number: int, rng: np.random.Generator) -> None:
        self.size, self.pitch, self.gap, self.number, self.rng = size, pitch_mm, gap_mm, number, rng
        self.side = float(rng.choice([-1.0, 1.0]))
        self.half_width = (size.top_width + size.bottom_width) / 4

    def anterior_arch(self) -> list[np.ndarray]:
        x = self.side * self.rng.uniform(3.0, 9.0)
        return [self._plane((x, -16.0, 0), (self.side, 0.2, 0.2), 9.0)]

    def posterior_arch(self) -> list[np.ndarray]:
        both = self.rng.random() < 0.6
        sides = (self.side, -self.side) if both else (self.side,)
        return [self._plane((15.0 * s, 10.0, 0), (-0.45 * s, 0.9, 0.1), 8.0) for s in sides]

    def jefferson(self) -> list[np.ndarray]:
        return [*self.anterior_arch(), *self.posterior_arch()]

    def lateral_mass(self) -> list[np.ndarray]:
        return [self._plane((17.5 * self.side, -4.0, 0), (0.75 * self.side, 0.6, 0.1), 13.0)]

    def dens(self) -> list[np.ndarray]:
        z = self.size.height / 2 + self.rng.uniform(1.5, 5.0)
        return [self._plane((0, 0, z), (0, self.rng.uniform(-0.5, 0.5), 1), 14.0, reach=0.55)]

    def dens_base(self) -> list[np.ndarray]:
        z = self.size.height / 2 - self.rng.uniform(2.5, 5.5)
        return [self._plane((0, 0, z), (self.rng.uniform(-0.3, 0.3), self.rng.uniform(-0.4, 0.4), 1), 17.0, reach=0.35)]

    def hangman(self) -> list[np.ndarray]:
        x = self.size.pillar[0] - 1.5
        return [
            self._plane((s * x, 8.0 + self.rng.uniform(-2, 1.5), -1.0), (0.2 * s, 0.9, -0.35), 11.5) for s in (-1, 1)
        ]

    def teardrop(self) -> list[np.ndarray]:
        low = -self.size.height / 2 - (1.0 if self.size.name == "C2" else 0.0)
        point = (self.rng.uniform(-2, 2), -self.size.half_depth + 4.0, low + 4.0)
        return [self._plane(point, (0.1 * self.side, -0.75, -0.65), 11.0, reach=0.3)]

    def lamina(self) -> list[np.ndarray]:
        x, y = self.size.pillar
        t = self.rng.uniform(0.25, 0.7)
        point = (self.side * (x - 1.5) * (1 - t), y + 2.5 + t * (self.size.lamina_y - y - 1.5), -1.0)
        return [self._plane(point, (-self.side * 0.85, 0.5, self.rng.uniform(-0.4, 0.4)), 8.5)]

    def transverse(self) -> list[np.ndarray]:
        x = self.half_width + 5.2 + self.rng.uniform(-1.5, 2.0) if self.size.name != "C2" else 17.0
        return [self._plane((self.side * x, 0.5, -1.5), (self.side, self.rng.uniform(-0.4, 0.3), 0.1), 10.5, reach=0.2)]

    def facet(self) -> list[np.ndarray]:
        x, y = self.size.pillar
        z = self.rng.uniform(-0.15, 0.2) * self.pitch
        return [self._plane((self.side * x, y, z), (0.15, self.rng.uniform(-0.3, 0.6), 0.9), 9.5)]

    def pedicle(self) -> list[np.ndarray]:
        point = (self.side * self.half_width * 0.95, self.size.half_depth - 1.0, 0.5)
        return [self._plane(point, (self.side * 0.75, 0.65, 0.1), 8.0)]

    def spinous(self) -> list[np.ndarray]:
        drop, length = self.size.spinous_drop, self.size.spinous
        along = self.rng.uniform(0.25, 0.65) * length
        point = (0.0, self.size.lamina_y + along, -1.0 - drop * along)
        normal = (self.rng.uniform(-0.3, 0.3), 1.0, -drop + self.rng.uniform(-0.4, 0.4))
        return [self._plane(point, normal, 0.72 * length + 4.0, reach=0.5)]

    def compression(self) -> list[np.ndarray]:
        row = np.zeros(CRACK_SIZE)
        half = self.size.height / 2
        row[:6] = CRUSH, -half, half, self.rng.uniform(0.18, 0.45), self.half_width + 1.0, self.size.half_depth
        row[15], row[19] = 0.7, self.number
        return [row]

    def burst(self) -> list[np.ndarray]:
        x = self.rng.uniform(-0.35, 0.35) * self.half_width
        split = self._plane((x, 0, 0), (1.0, self.rng.uniform(-0.4, 0.4), self.rng.uniform(-0.3, 0.3)), 15.0)
        across = self._plane((0, -1.0, 0), (0.1, -1.0, self.rng.uniform(-0.5, 0.5)), 13.0)
        return [split, across] if self.rng.random() < 0.6 else [split]

    def _plane(self, point: Vector, normal: Vector, radius: float, reach: float = 0.0) -> np.ndarray:
        """A crack through `point`; its ball lies `reach` radii towards the fragment, which moves by 0.4 to 3 mm."""
        n = np.asarray(normal, float) + self.rng.normal(0, 0.12, 3)
        n /= np.linalg.norm(n)
        slide = self.rng.normal(0, 1, 3)
        slide -= (slide @ n) * n
        slide *= np.clip(self.rng.exponential(1.1), 0.3, 3.0) / np.linalg.norm(slide)
        row = np.zeros(CRACK_SIZE)
        row[0], row[1:4], row[4:7], row[7] = PLANE, point, n, self.gap
        row[8:11] = slide
        row[11:14] = np.asarray(point) + reach * radius * n
        row[14], row[15], row[19] = radius, self.rng.uniform(0.35, 0.8), self.number
        return row
