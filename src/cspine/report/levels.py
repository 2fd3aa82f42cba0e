"""What a report says of each level: its probability, the decision, and what to keep in mind of both."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from cspine.anatomy import LEVELS
from cspine.report.frame import Frame

# Of a level of which less is found not much was seen; the smallest, C3 or C4, has some 6,000 mm3 of bone.
LEAST_MM3 = 1500.0


@dataclass(frozen=True)
class LevelReading:
    """One of C1..C7. Probabilities are frequencies; None where no head is trained."""

    name: str
    probability: float | None
    threshold: float | None
    centre_mm: tuple[float, float, float] | None  # LPS, of its body; None where the level is not found
    note: str

    @property
    def decision(self) -> str:
        if self.probability is None or self.threshold is None:
            return ""
        return "fracture" if self.probability >= self.threshold else "no fracture"


def read_levels(
    labels: np.ndarray, frame: Frame, told: Mapping[str, float] | None, thresholds: Mapping[str, float]
) -> tuple[LevelReading, ...]:
    """The seven, from labels (z, y, x) on the frame and the probabilities by target (None without heads)."""
    readings: list[LevelReading] = []
    deepest = -1.0
    for number, (level, box) in enumerate(zip(LEVELS, ndimage.find_objects(labels, len(LEVELS)), strict=True), 1):
        probability = None if told is None else told[level]
        threshold = thresholds.get(level)
        if box is None:
            prior = "" if told is None else "; its probability is that of levels not found"
            readings.append(LevelReading(level, probability, threshold, None, f"not found in this scan{prior}"))
            continue
        mine, start = labels[box] == number, np.array([part.start for part in box])
        depth = float(np.nonzero(mine)[0].mean() + start[0])
        notes = _doubts(mine, box[0], frame, depth, deepest)
        deepest = max(deepest, depth)
        place = frame.affine @ [*(thickest(mine) + start)[::-1], 1]
        centre_mm = float(place[0]), float(place[1]), float(place[2])
        readings.append(LevelReading(level, probability, threshold, centre_mm, "; ".join(notes)))
    return tuple(readings)


def thickest(mine: np.ndarray) -> np.ndarray:
    """The voxel furthest inside, which is in the body; the middle of a vertebra is in its canal."""
    depth = ndimage.distance_transform_edt(np.pad(mine, 1))[1:-1, 1:-1, 1:-1]
    inside = np.argwhere(depth >= depth.max() - 0.01)
    # Of several the one nearest to their middle.
    return inside[np.linalg.norm(inside - inside.mean(axis=0), axis=1).argmin()]


def _doubts(mine: np.ndarray, planes: slice, frame: Frame, depth: float, deepest: float) -> list[str]:
    found = []
    if planes.start <= 1:
        found.append("cut off by the upper end of the scan")
    if planes.stop >= frame.shape[0] - 1:
        found.append("cut off by the lower end of the scan")
    volume_mm3 = float(np.count_nonzero(mine)) * frame.voxel_mm**3
    if volume_mm3 < LEAST_MM3:
        found.append(f"only {volume_mm3 / 1000:.1f} cm\u00b3 of it found")
    if depth < deepest:
        found.append("found above a higher level: one of the two is wrong")
    return found
