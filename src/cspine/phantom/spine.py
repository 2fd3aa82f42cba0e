"""How the vertebrae of one patient are sized, stacked and tilted."""

import math
from dataclasses import dataclass, replace

import numpy as np

from cspine.phantom.canvas import Frame
from cspine.phantom.vertebrae import SIZES, Size, vary

# The middle of C1's ring above that of C2's body. Above C2's pedicles it is then 15.5 mm; in life 17 mm in men, 15 in
# women (Ranawat et al., J Bone Joint Surg 61-A, 1979).
C1_ABOVE_C2_MM = 19.0
# The middle of C1's ring behind that of the dens, were there no joint between the dens and the front arch.
RING_BEHIND_DENS_MM = 10.7
MOST_BETWEEN_DEG = 11.0  # between neighbours that are not hurt


@dataclass(frozen=True)
class Spine:
    """C1 to T3 from cranial to caudal: dimensions, places, the distance in mm to the vertebra below, and wear.

    Wear and age run from 0 (young) to 1 (old)."""

    sizes: tuple[Size, ...]
    frames: tuple[Frame, ...]
    pitches: tuple[float, ...]
    wear: tuple[float, ...]
    age: float
    scale: float

    def curve(self, local_y: list[float]) -> np.ndarray:
        """Points (x, y, z) in mm, one a level, at a depth of each level's own frame."""
        return np.array([f.to_world(np.array([0.0, y, 0.0])) for f, y in zip(self.frames, local_y, strict=True)])


def draw_spine(rng: np.random.Generator) -> Spine:
    """A random neck; the middle of C2's body is at x = y = 0 and C5 about at z = 0."""
    scale = float(np.clip(rng.normal(1.0, 0.065), 0.86, 1.15))
    age = rng.random()
    wear = _wear(age, rng)
    varied = [vary(size, rng, scale) for size in SIZES]
    sizes = tuple(replace(size, disc=size.disc * (1 - 0.5 * w)) for size, w in zip(varied, wear, strict=True))
    tilts = _tilts(rng)
    bend = math.radians(rng.normal(0, 2.2))
    twist = math.radians(rng.normal(0, 4.0))
    frames: list[Frame] = []
    pitches: list[float] = []
    joint_mm = _dens_joint_mm(age, rng)
    place = np.array([0.0, 0.0, 60.0 * scale])
    for i, size in enumerate(sizes):
        level = i - 4
        yaw = twist * (0.4 - i / 9) * 2 + (math.radians(rng.normal(0, 3)) if i == 0 else 0.0)
        axes = _rotation(tilts[i], bend * level / 2, yaw)
        if i == 1:
            frames[0] = _atlas_frame(place, axes, frames[0].axes, scale, joint_mm)
        frames.append(Frame(place.copy(), axes))
        if i == 0:
            pitches.append(C1_ABOVE_C2_MM * scale)
            continue
        below = sizes[i + 1] if i + 1 < len(sizes) else size
        pitch = size.height / 2 + size.disc + below.height / 2 + (1.0 if i == 1 else 0.0)
        pitches.append(pitch)
        following = tilts[min(i + 1, len(tilts) - 1)]
        middle = _rotation((tilts[i] + following) / 2, bend * (level + 0.5) / 2, 0.0)
        # Each body stands a little behind or in front of its neighbour, as in any real column.
        place = place - middle[2] * pitch + np.array([0.0, rng.normal(0, 0.35), 0.0])
    return Spine(sizes, tuple(frames), tuple(pitches), tuple(wear), age, scale)


def _wear(age: float, rng: np.random.Generator) -> list[float]:
    """Degeneration of every level's disc, 0 to 1: little in the young, most at C5 to C7 in the old."""
    usual = np.array([0, 0.3, 0.5, 0.6, 1.0, 1.1, 0.8, 0.4, 0.4, 0.4])
    return np.clip(age**1.5 * usual * rng.uniform(0.3, 1.4, 10), 0, 1).tolist()


def _tilts(rng: np.random.Generator) -> np.ndarray:
    """Forward lean in radians of C1 to T3, from about upright at C2 to the slope of the upper thorax.

    Necks differ much, and are bent high or low: of people without complaints no more than two thirds are lordotic
    (Guo et al., Cervical lordosis in asymptomatic individuals, 2018), so that a level must not be known by its lean.
    """
    thorax = rng.normal(24, 7)
    head = thorax - 20 - 0.8 * (thorax - 24) - rng.normal(0, 13)
    course = np.clip((np.arange(10) - 1) / 6.5, 0, 1.3) ** np.exp(rng.uniform(-0.8, 1.0))
    # No two neighbours are further from parallel than they could be in life.
    steps = np.clip(np.diff(head + (thorax - head) * course), -MOST_BETWEEN_DEG, MOST_BETWEEN_DEG)
    lean = head + np.concatenate([[0.0], np.cumsum(steps)])
    lean[0] = head + rng.normal(-6, 7)
    return np.radians(lean + rng.normal(0, 0.8, 10))


def _dens_joint_mm(age: float, rng: np.random.Generator) -> float:
    """Between dens and front arch of C1: under 2 mm in 95 % of adults (Rojas et al., AJNR 28, 2007, CT).

    In the old arthrosis may close it.
    """
    return float(np.clip(rng.normal(1.7 - 0.8 * age, 0.4), 0.2, 2.8))


def _atlas_frame(
    axis_origin: np.ndarray, axis_axes: np.ndarray, atlas_axes: np.ndarray, scale: float, joint_mm: float
) -> Frame:
    offset = np.array([0.0, RING_BEHIND_DENS_MM - joint_mm, C1_ABOVE_C2_MM * scale])
    # The ring turns about the dens, so it is placed by the dens and not by its own middle.
    pivot = axis_origin + np.array([0.0, 0.0, C1_ABOVE_C2_MM * scale]) @ axis_axes
    return Frame(pivot + np.array([0.0, offset[1], 0.0]) @ atlas_axes, atlas_axes)


def _rotation(lean: float, side: float, yaw: float) -> np.ndarray:
    """Rows x, y, z of a frame leaning forward (its top towards -y), to the side, and turned about its own axis."""
    cx, sx, cy, sy, cz, sz = (f(a) for a in (lean, side, yaw) for f in (math.cos, math.sin))
    about_x = np.array([[1, 0, 0], [0, cx, sx], [0, -sx, cx]])
    about_y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    about_z = np.array([[cz, sz, 0], [-sz, cz, 0], [0, 0, 1]])
    return about_z @ about_x @ about_y
