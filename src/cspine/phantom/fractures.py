"""Fractures: which patterns break a level, how often, how wide, and what `fractures.csv` says of them."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from cspine.anatomy import LEVELS
from cspine.errors import UserError
from cspine.phantom.canvas import Canvas
from cspine.phantom.cracks import CRUSH, cut_area_mm2
from cspine.phantom.patterns import Pattern
from cspine.phantom.spine import Spine

# How often each type is drawn at C1, at C2, and at C3 to C7. C2: rounded after Greene et al., Acute axis fractures,
# Spine 22(16), 1997, 1843-1852 (340 patients: dens type I 2, II 120, III 77, hangman's 74, others 67), with more of
# type I than there. The others follow clinical texts, rounded: no one source counts them all.
TYPES: dict[str, dict[str, float]] = {
    "C1": {"anterior_arch": 2, "posterior_arch": 4, "jefferson": 4, "lateral_mass": 3},
    "C2": {
        "dens_tip": 0.5,
        "dens": 6,
        "dens_base": 4,
        "hangman": 4,
        "teardrop": 1.5,
        "lamina": 1,
        "transverse": 1,
    },
    "C3": {"facet": 3, "lamina": 2, "transverse": 3, "pedicle": 1.5, "compression": 2.5, "teardrop": 2, "burst": 1.5},
}
SPINOUS_WEIGHT = {"C3": 0.5, "C4": 0.7, "C5": 1.5, "C6": 4.0, "C7": 6.0}
SECOND_TYPE_SHARE = 0.3
CHIP_SHARE = 0.3

# Width of the gap where it is widest: median, spread of the logarithm, and from a hairline to what none overlooks.
GAP_MM, GAP_SPREAD, GAP_RANGE_MM = 1.1, 0.55, (0.3, 3.0)

# What is known of a fracture in the files: its type and extent, the file numbers of its first and last slice.
FRACTURE_COLUMNS = (
    "level",
    "type",
    "gap_mm",
    "displacement_mm",
    "volume_mm3",
    "n_slices",
    "first_slice",
    "last_slice",
    "visibility",
)

# A crack that passes through less bone than this is drawn again.
LEAST_AREA_MM2 = 8.0
TRIES = 50


@dataclass(frozen=True)
class Fracture:
    """One fracture; `level` 0 is C1, `number` marks its voxels in the canvas's truth, lengths as drawn.

    The gap is 0 for crushed bone; the displacement is that of the piece that moved farthest, or the height lost.
    """

    number: int
    level: int
    kind: str
    gap_mm: float
    displacement_mm: float
    cracks: tuple[np.ndarray, ...]

    @property
    def place(self) -> np.ndarray:
        """A point of the fracture in mm of the vertebra's frame, on the left where it is on both sides."""
        row = self.cracks[0]
        return np.array([0.0, -0.3 * row[9], 0.6 * row[2]]) if row[0] == CRUSH else row[1:4].copy()


def draw_fractures(
    levels: tuple[int, ...], spine: Spine, solids: list[list[np.ndarray]], rng: np.random.Generator
) -> list[Fracture]:
    """One fracture, sometimes two, in each of the levels; `solids` are the primitives of the vertebrae from C1."""
    found: list[Fracture] = []
    for level in levels:
        for kind in _draw_kinds(spine.sizes[level].name, rng):
            found.append(draw_fracture(kind, level, len(found) + 1, spine, solids, rng))
    return found


def draw_fracture(
    kind: str, level: int, number: int, spine: Spine, solids: list[list[np.ndarray]], rng: np.random.Generator
) -> Fracture:
    """One fracture of a given type; drawn again until every one of its cracks passes through bone."""
    solid = np.stack(solids[level])
    for _ in range(TRIES):
        gap = round(float(np.clip(rng.lognormal(math.log(GAP_MM), GAP_SPREAD), *GAP_RANGE_MM)), 2)
        pattern = Pattern(spine.sizes[level], spine.pitches[level], gap, rng)
        getattr(pattern, kind)()
        if all(row[0] == CRUSH or cut_area_mm2(row, solid) >= LEAST_AREA_MM2 for row in pattern.rows):
            break
    else:
        raise RuntimeError(f"no {kind} fracture of {spine.sizes[level].name} met its bone in {TRIES} tries")
    if kind != "compression" and rng.random() < CHIP_SHARE:
        pattern.chip()
    for row in pattern.rows:
        row[20] = number
    gap = 0.0 if kind == "compression" else gap
    return Fracture(number, level, kind, gap, round(pattern.displacement_mm, 2), tuple(pattern.rows))


def mark_missed(canvas: Canvas, fractures: list[Fracture], spine: Spine) -> None:
    """Where voxels are so large that a fracture passes between all of its level's, mark the nearest one as truth.

    Raises UserError where a fractured level holds no voxel at all.
    """
    grid = canvas.grid
    for fracture in fractures:
        if (canvas.truth == fracture.number).any():
            continue
        free = np.argwhere((canvas.label == fracture.level + 1) & (canvas.truth == 0))
        if not len(free):
            raise UserError(f"{LEVELS[fracture.level]} is lost between voxels of {grid.pixel_mm:.1f} mm; scan it finer")
        steps = np.array([grid.pixel_mm, grid.pixel_mm, -grid.spacing_mm])
        points = np.array(grid.origin) + free[:, ::-1] * steps
        away = np.linalg.norm(points - spine.frames[fracture.level].to_world(fracture.place), axis=1)
        canvas.truth[tuple(free[away.argmin()])] = fracture.number


def describe(fracture: Fracture, canvas: Canvas, numbers: np.ndarray, visibility: float) -> dict[str, Any]:
    """The fracture's row of `fractures.csv` but for the study; `numbers` are the file numbers of the slices."""
    marked = canvas.truth == fracture.number
    slices = np.sort(numbers[marked.any((1, 2))])
    voxel_mm3 = canvas.grid.pixel_mm**2 * canvas.grid.spacing_mm
    values = (
        LEVELS[fracture.level],
        fracture.kind,
        fracture.gap_mm,
        fracture.displacement_mm,
        round(float(marked.sum()) * voxel_mm3, 1),
        len(slices),
        int(slices[0]),
        int(slices[-1]),
        round(visibility, 2),
    )
    return dict(zip(FRACTURE_COLUMNS, values, strict=True))


def kinds_of(name: str) -> dict[str, float]:
    """The types that occur at a level, with the weights they are drawn by."""
    weights = dict(TYPES.get(name, TYPES["C3"]))
    if name in SPINOUS_WEIGHT:
        weights["spinous"] = SPINOUS_WEIGHT[name]
    return weights


def cracks_by_level(fractures: list[Fracture]) -> dict[int, np.ndarray]:
    """The rows for `anatomy.render`."""
    return {
        level: np.stack([row for f in fractures if f.level == level for row in f.cracks])
        for level in {f.level for f in fractures}
    }


def _draw_kinds(name: str, rng: np.random.Generator) -> list[str]:
    weights = kinds_of(name)
    chances = np.array(list(weights.values())) / sum(weights.values())
    count = 2 if rng.random() < SECOND_TYPE_SHARE else 1
    return [str(kind) for kind in rng.choice(list(weights), count, replace=False, p=chances)]
