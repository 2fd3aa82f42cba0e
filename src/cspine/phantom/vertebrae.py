"""The shapes of C1 to T3, each in its own frame: x left, y posterior, z up, in mm, from the centre of the body.

C1 has no body: its origin is the middle of the ring. Linear dimensions are rounded after Panjabi et al., Cervical human
vertebrae: quantitative three-dimensional anatomy of the middle and lower regions, Spine 16(8), 1991, 861-869, and
Panjabi et al., Thoracic human vertebrae, Spine 16(8), 1991, 888-901. They measured end plates; the widths of C3 to C7
here include the uncinate rims beside them.
"""

from dataclasses import dataclass, replace

import numpy as np

from cspine.phantom.solids import beam, box, canal, chain, ellipsoid, mirrored, vertebral_body

# Of people with an inborn gap in the middle of the posterior arch of C1, smooth and corticated: no fracture.
CLEFT_SHARE = 0.04
# Of patients with a visible line between dens and body, and of C4 to C6 with a limbus: an unfused front corner.
GROWTH_LINE_SHARE = 0.3
LIMBUS_SHARE = 0.025


@dataclass(frozen=True)
class Size:
    """One level's dimensions in mm; `spinous_drop` is how far the tip lies below the root per mm of length."""

    name: str
    top_width: float
    bottom_width: float
    depth: float
    height: float
    canal_width: float
    canal_depth: float
    spinous: float
    spinous_drop: float
    transverse: float
    foramen: float
    disc: float  # height of the disc below
    bifid: float = 0.0
    pillar_lift: float = 0.0

    @property
    def half_depth(self) -> float:
        return self.depth / 2

    @property
    def canal_y(self) -> float:
        return self.half_depth + self.canal_depth / 2

    @property
    def lamina_y(self) -> float:
        return self.half_depth + self.canal_depth + 2.0

    @property
    def pillar(self) -> tuple[float, float]:
        """x and y of the middle of an articular pillar."""
        return self.canal_width / 2 + 5.0, self.half_depth + 6.5


SIZES = (
    Size("C1", 0, 0, 0, 12.0, 28.0, 30.0, 3.0, 0.0, 38.0, 3.2, 0.0),
    Size("C2", 18.0, 19.5, 15.6, 21.0, 24.5, 17.0, 17.0, 0.35, 27.0, 2.9, 5.0, bifid=4.5),
    Size("C3", 20.5, 20.0, 15.3, 13.2, 22.9, 15.5, 12.5, 0.50, 25.5, 2.9, 4.5, bifid=3.6),
    Size("C4", 21.0, 20.6, 15.5, 13.0, 24.0, 15.0, 12.5, 0.55, 26.5, 3.0, 4.5, bifid=3.6),
    Size("C5", 21.8, 22.0, 16.0, 13.0, 24.9, 15.0, 14.5, 0.58, 27.5, 3.0, 4.7, bifid=3.2),
    Size("C6", 23.4, 24.4, 17.0, 13.0, 25.5, 15.2, 21.0, 0.70, 29.0, 3.0, 4.9, bifid=2.0),
    Size("C7", 26.0, 26.4, 17.2, 14.0, 24.5, 14.8, 30.0, 0.74, 33.0, 1.3, 4.9),
    Size("T1", 27.0, 28.0, 16.6, 15.0, 21.5, 15.5, 30.0, 0.80, 37.0, 0.0, 4.2, pillar_lift=1.0),
    Size("T2", 26.5, 28.0, 17.6, 16.5, 19.0, 15.2, 29.0, 1.0, 35.0, 0.0, 4.2, pillar_lift=1.0),
    Size("T3", 25.0, 28.0, 18.6, 17.0, 18.0, 15.0, 29.0, 1.1, 32.0, 0.0, 4.4, pillar_lift=1.0),
)


def vary(size: Size, rng: np.random.Generator, overall: float) -> Size:
    """One patient's dimensions: the patient's overall size times 4 to 7 % of variation for every dimension."""
    names = ("top_width", "depth", "height", "canal_width", "canal_depth", "spinous", "transverse", "foramen", "disc")
    spread = {"spinous": 0.07, "foramen": 0.12, "disc": 0.12}
    factors = {name: overall * (1 + spread.get(name, 0.04) * rng.uniform(-1.6, 1.6)) for name in names}
    changed = {name: getattr(size, name) * factor for name, factor in factors.items()}
    changed["bottom_width"] = size.bottom_width * factors["top_width"]
    return replace(size, **changed, spinous_drop=size.spinous_drop + rng.uniform(-0.08, 0.08))


def vertebra(size: Size, pitch_mm: float, wear: float, rng: np.random.Generator) -> list[np.ndarray]:
    """The primitives of one vertebra; `pitch_mm`, the distance to the body below, sets the height of the pillars."""
    if size.name == "C1":
        return atlas(size, rng)
    if size.name == "C2":
        parts = axis(size, pitch_mm, rng)
    elif size.name.startswith("T"):
        parts = thoracic(size, pitch_mm)
    else:
        parts = subaxial(size, pitch_mm, wear, rng)
    return [*parts, *osteophytes(size, wear, rng), *vessel_canals(size, rng), *growth_lines(size, rng)]


def osteophytes(size: Size, wear: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Spurs of a worn segment at the front and rear edges of the end plates, and pits in them; `wear` is 0 to 1."""
    parts = []
    half = size.height / 2
    for z in (-1, 1):
        front, rear, pit = rng.random(3) < wear * np.array([1.0, 0.5, 0.25])
        if size.name == "C2" and z > 0:
            continue
        if front:
            place = (rng.uniform(-4, 4), -size.half_depth - 0.3, z * (half - 1.0))
            parts.append(ellipsoid(place, (rng.uniform(3, 6), 1.5 + 2.5 * wear * rng.random(), 1.7), blend=2))
        if rear:
            place = (rng.uniform(-7, 7), size.half_depth + 0.2, z * (half - 0.6))
            parts.append(ellipsoid(place, (rng.uniform(2, 4), 1.0 + 1.2 * wear * rng.random(), 1.3), blend=1.5))
        if pit:
            place = (rng.uniform(-4, 4), rng.uniform(-3, 3), z * half)
            parts.append(ellipsoid(place, (rng.uniform(1.5, 3), rng.uniform(1.5, 3), rng.uniform(1, 2.2)), cut=True))
    return parts


def growth_lines(size: Size, rng: np.random.Generator) -> list[np.ndarray]:
    """Remnants of growth that are no fractures: the line under the dens, a corner that never fused with its body."""
    line, corner = rng.random(2)
    if size.name == "C2" and line < GROWTH_LINE_SHARE:
        place = (0.0, 0.2, size.height / 2 - rng.uniform(1.0, 2.5))
        return [
            ellipsoid(place, (rng.uniform(3, 4.5), rng.uniform(3, 4.2), rng.uniform(0.25, 0.45)), blend=0.3, cut=True)
        ]
    if size.name in ("C4", "C5", "C6") and corner < LIMBUS_SHARE:
        y, z = -size.half_depth + 3.2, size.height / 2 - 2.6
        return [box((0, y, z), (7.0, 0.45, 3.8), 0.4, shear=-1.0, blend=0.6, cut=True)]
    return []


def vessel_canals(size: Size, rng: np.random.Generator) -> list[np.ndarray]:
    """Canals of nutrient vessels: thin dark lines like fractures, but with a cortex of their own and a blind end."""
    deep, hole = size.half_depth, rng.uniform(0.3, 0.55)
    z = rng.uniform(-1.5, 1.5)
    cuts = [beam((0, deep + 0.5, z), (0, deep - rng.uniform(2, 7), z), (2.0 * hole, hole), blend=0.5, cut=True)]
    for _ in range(rng.integers(1, 5)):
        x, z = rng.uniform(-6, 6), rng.uniform(-0.3, 0.3) * size.height
        front = ((x, -deep - 1, z), (x * 0.7, -deep + rng.uniform(3, 8), z + rng.uniform(-2, 2)))
        px, py = size.pillar
        sign = rng.choice([-1.0, 1.0])
        side = ((sign * (px + 7), py, z), (sign * (px + rng.uniform(-3, 2)), py + rng.uniform(-2, 2), z))
        start, end = front if rng.random() < 0.5 else side
        cuts.append(beam(start, end, (rng.uniform(0.2, 0.42),) * 2, blend=0.3, cut=True))
    return cuts


def atlas(size: Size, rng: np.random.Generator) -> list[np.ndarray]:
    """C1: two lateral masses, a strong arch before and a thin one behind, wide transverse processes, no body."""
    s = size.canal_width / 28.0
    arch = 23.5 * s + rng.uniform(-1, 1)
    front = [(12.5 * s, -12.5, 0.3), (9.0 * s, -15.6, 0), (4.8 * s, -17.4, 0), (0, -18.2, 0)]
    back = [
        (16.0 * s, 4.0, 0),
        (15.2 * s, 10.0, -0.5),
        (12.2 * s, arch - 7.5, -0.8),
        (7.2 * s, arch - 2.8, -0.6),
        (0, arch - 0.3, 0),
    ]
    side = [
        box((16.6 * s, -4.5, 0), (6.4, 9.6, 8.4), rounding=5.5, blend=3),
        ellipsoid((13.5 * s, -9.5, 0.5), (4.5, 4.0, 6.0), blend=3),
        *chain(front, (3.1, 5.8), blend=0.6),
        *chain(back, (2.4, 3.6), blend=0.6),
        beam((21 * s, -2, 0.5), (size.transverse - 3.0, 1.5, -1), (3.0, 4.0), (3.2, 3.2), blend=3),
        beam((21 * s, -7, 0), (31.0 * s, -5.0, -1), (1.9, 3.6), (1.9, 2.6), blend=2),
        beam((31.0 * s, -5.0, -1), (size.transverse - 3.5, 0.5, -1), (1.9, 2.6), (2.2, 2.6), blend=2),
        beam((26.8 * s, -2.4, -14), (26.8 * s, -2.4, 14), (size.foramen, size.foramen), blend=0.8, cut=True),
    ]
    groove = beam((20 * s, 7, 4.8), (11 * s, 15, 4.8), (2.4, 2.4), blend=1, cut=True)  # of the vertebral artery
    tubercles = [ellipsoid((0, -19.8, 0), (3.6, 2.4, 4.6), blend=2)]
    tubercles.append(ellipsoid((0, arch + 1.6, 0.5), (2.6, size.spinous, 3.4), blend=2))
    parts = [*mirrored([*side, groove]), *tubercles]
    if rng.random() < CLEFT_SHARE:
        parts.append(beam((0.5, arch, -12), (-0.5, arch, 12), (1.3, 9.0), up=(0, 1, 0), blend=1.5, cut=True))
    return parts


def axis(size: Size, pitch_mm: float, rng: np.random.Generator) -> list[np.ndarray]:
    """C2: a body with the dens, sloping shoulders for C1, strong laminae and a large bifid spinous process."""
    x, y = size.pillar
    half = size.height / 2
    tip = half + 15.0 + rng.uniform(-1.5, 1.5)
    middle = [
        vertebral_body((0, 0, -1), half, (size.bottom_width / 2, size.half_depth), (8.5, 6.8), waist=0.08),
        beam((0, 0.2, half - 5), (0, 0.2, half + 5.0), (6.2, 6.0), (4.9, 5.0), blend=3),
        beam((0, 0.2, half + 5.0), (0, 0.8, tip - 4.5), (4.9, 5.0), (5.3, 5.4), blend=2),
    ]
    side = [
        ellipsoid((13.0, 2.2, half - 2.6), (8.6, 8.6, 5.6), _tilt(0.42), blend=4),
        beam((11.5, 5.0, 3.5), (x - 0.5, y, -5.0), (4.2, 5.2), blend=4),
        box((x, y + 0.5, -half + 1.5), (5.5, 5.8, pitch_mm * 0.34), 3.4, shear=0.85, blend=3),
        beam((12.5, 2.0, 2.0), (size.transverse - 2, 3.5, -2.5), (3.4, 4.4), (2.6, 3.0), blend=3),
        *_lamina(size, 2.9, 6.0, -3.5),
    ]
    foramen = beam((19.0, 2.2, -13), (16.2, 2.2, 4.5), (size.foramen,) * 2, up=(0, 1, 0), blend=0.8, cut=True)
    return [*middle, *mirrored(side), *_spinous(size, (3.4, 6.6), -3.5), _canal(size), *mirrored([foramen])]


def subaxial(size: Size, pitch_mm: float, wear: float, rng: np.random.Generator) -> list[np.ndarray]:
    """C3 to C7: uncinate body, pedicles, articular pillars, transverse processes with a foramen, laminae, spine.

    Worn joints thicken: uncinate processes and pillars grow by up to 1 mm.
    """
    half_width = (size.top_width + size.bottom_width) / 4
    x, y = size.pillar
    hole = half_width + size.foramen + 0.4
    end = size.transverse
    body = vertebral_body(
        (0, 0, 0),
        size.height / 2,
        (size.bottom_width / 2, size.half_depth),
        (size.top_width / 2, size.half_depth * 0.97),
        waist=0.10,
        dish=0.9,
        uncus=(3.2 if size.name != "C7" else 2.2) + wear,
    )
    wing = hole + size.foramen + 1.0  # the bridge beside the foramen, from the front to the rear tubercle
    side = [
        beam((half_width * 0.8, size.half_depth - 3.0, 0.8), (x, y - 2.0, 0.5), (2.4, 3.2), blend=3),
        box((x, y, 0), (5.8 + wear, 5.8 + 0.5 * wear, pitch_mm * 0.46), 4.6, shear=0.9, blend=2.5),
        beam((half_width * 0.85, -2.4, -0.5), (wing - 1.5, -3.9, -2.0), (1.5, 2.6), (1.5, 2.0), blend=2),
        ellipsoid((wing - 0.5, -4.2, -1.8), (1.9, 2.2, 3.4), blend=2),
        box((hole, 0.4, -1.8), (size.foramen + 1.4, size.foramen + 1.5, 3.0), 2.0, blend=2),
        beam((x - 1.0, 6.0, 0.0), (end - 2.0, 3.0, -3.2), (2.2, 2.8), (2.2, 2.6), blend=2.5),
        beam((wing - 0.3, -3.4, -2.6), (end - 3.0, 2.2, -3.6), (1.7, 2.0), blend=2),
        *_lamina(size, 1.9, 6.0, -0.8),
    ]
    left, right = (size.foramen * rng.uniform(0.85, 1.15) for _ in range(2))
    cuts = [
        beam((sign * hole, 0.6, -12), (sign * hole, 0.2, 12), (radius, radius * 0.95), blend=0.8, cut=True)
        for sign, radius in ((1, left), (-1, right))
    ]
    return [body, *mirrored(side), *_spinous(size, (2.3, 4.4), -1.0), _canal(size), *cuts]


def thoracic(size: Size, pitch_mm: float) -> list[np.ndarray]:
    """T1 to T3: taller bodies without foramina, stout transverse processes backwards and up, long sloping spines."""
    half_width = (size.top_width + size.bottom_width) / 4
    x, y = size.canal_width / 2 + 3.5, size.half_depth + 7.0
    body = vertebral_body(
        (0, 0, 0),
        size.height / 2,
        (size.bottom_width / 2, size.half_depth),
        (size.top_width / 2, size.half_depth),
        waist=0.12,
    )
    side = [
        beam((half_width * 0.7, size.half_depth - 3, 3), (x, y - 1, 2.5), (3.2, 4.4), blend=3),
        box((x, y + 0.5, size.pillar_lift), (5.0, 3.6, pitch_mm * 0.48), 3.0, shear=0.45, blend=2.5),
        beam((x + 1, y + 1, 2.5), (size.transverse - 3, y + 10, 4.5), (4.0, 4.6), (4.2, 4.2), blend=3),
        *_lamina(size, 2.6, 7.0, -0.5),
    ]
    return [body, *mirrored(side), *_spinous(size, (2.6, 5.0), -2.0), _canal(size)]


def disc(size: Size, below: Size) -> list[np.ndarray]:
    """The disc under a vertebra, in that vertebra's frame; a little larger than the gap, bones are painted over it."""
    height = size.disc / 2 + 2.0
    radii = (max(size.bottom_width, below.top_width) / 2, size.half_depth * 0.98)
    base = -size.height / 2 - (1.0 if size.name == "C2" else 0.0)
    return [vertebral_body((0, 0, base - size.disc / 2), height, radii, radii, waist=-0.05, dish=0.0)]


def rib(size: Size, rng: np.random.Generator) -> list[np.ndarray]:
    """Both ribs of a thoracic vertebra, from the head at the body round to the front."""
    x = size.bottom_width / 2
    wide = {"T1": 52.0, "T2": 66.0, "T3": 76.0}[size.name] * rng.uniform(0.95, 1.05)
    points = [
        (x + 1.5, 6.0, 5.0),
        (x + 12.0, 15.0, 6.0),
        (size.transverse + 6.0, 18.0, 3.0),
        (wide * 0.9, 8.0, -5.0),
        (wide, -14.0, -16.0),
        (wide * 0.85, -38.0, -27.0),
        (wide * 0.5, -56.0, -35.0),
    ]
    return mirrored(chain(points, (2.9, 5.2)))


def _lamina(size: Size, thick: float, tall: float, z: float) -> list[np.ndarray]:
    x, y = size.pillar
    root, midline = (x - 1.5, y + 2.5, z), (0.5, size.lamina_y + 1.0, z - 1.0)
    return [beam(root, midline, (thick, tall), up=(0, -0.35, 1), blend=2.5)]


def _spinous(size: Size, root: tuple[float, float], z: float) -> list[np.ndarray]:
    start = (0.0, size.lamina_y, z)
    length, drop = size.spinous, size.spinous_drop
    end = (0.0, size.lamina_y + length, z - drop * length)
    tip = (root[0] * (1.0 if size.bifid else 1.15), root[1] * 0.62)
    shaft = beam(start, end, root, tip, blend=3)
    if not size.bifid:
        return [shaft, ellipsoid(end, (3.8, 4.0, 4.2), blend=2)]
    near = (0.0, start[1] + 0.6 * length, z - 0.6 * drop * length)
    prong = beam(near, (size.bifid, end[1] + 2.5, end[2] - 2.0), (1.9, 3.6), (2.3, 2.6), blend=2)
    return [shaft, *mirrored([prong])]


def _canal(size: Size) -> np.ndarray:
    half = size.canal_depth / 2
    return canal((0, size.canal_y, 0), size.canal_width / 2 + 1.5, half, half + 2.5)


def _tilt(angle: float) -> np.ndarray:
    """Axes turned in the coronal plane so that the left side lies lower."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
