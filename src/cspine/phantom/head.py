"""The head over the spine, in the frame of C1: skull base, jaws, teeth, hyoid, and the thyroid cartilage."""

import numpy as np

from cspine.phantom.canvas import Canvas, Frame, Material
from cspine.phantom.solids import beam, box, chain, ellipsoid, mirrored, shell
from cspine.phantom.spine import Spine

SKULL = Material(cortex_hu=1100, core_hu=430, cortex_mm=1.4, surface_mm=0.25, joint_mm=1.2)
JAW = Material(cortex_hu=1080, core_hu=260, cortex_mm=1.6, joint_mm=0.0)
ENAMEL = Material(cortex_hu=2350, core_hu=1600, cortex_mm=1.2, texture_hu=0, surface_mm=0, joint_mm=0)
DENTINE = Material(cortex_hu=1450, core_hu=900, cortex_mm=1.6, texture_hu=0, surface_mm=0, joint_mm=0)
CELLS = Material(cortex_hu=150, core_hu=-350, cortex_mm=0.8, texture_hu=330, surface_mm=0.8, joint_mm=0)
THIN = Material(cortex_hu=500, core_hu=500, cortex_mm=0.5, surface_mm=0.3, joint_mm=0)
FILLING = Material(cortex_hu=3071, core_hu=3071, texture_hu=0, surface_mm=0, joint_mm=0.0)
CARTILAGE = Material(cortex_hu=260, core_hu=110, cortex_mm=0.8, joint_mm=0.0)
AIR = Material(cortex_hu=-1000, core_hu=-1000, texture_hu=0, surface_mm=0.8, joint_mm=0.0)
BRAIN = Material(cortex_hu=34, core_hu=34, texture_hu=0, surface_mm=0, joint_mm=0.0)

# Of patients with air between the tongue and the palate.
OPEN_MOUTH_SHARE = 0.6


def paint_head(canvas: Canvas, spine: Spine, rng: np.random.Generator) -> None:
    """Paint the head; the vertebrae come after it and keep their joints free."""
    atlas = spine.frames[0]
    frame = Frame(atlas.origin, atlas.axes)
    s = spine.scale
    chin = (-92.0 + rng.uniform(-3, 3)) * s, (-36.0 + rng.uniform(-6, 6)) * s
    canvas.paint([ellipsoid((0, 20 * s, 64 * s), (66 * s, 82 * s, 48 * s))], frame, BRAIN, soft=True)
    canvas.paint(nasal_air(s), frame, AIR, soft=True)
    if rng.random() < OPEN_MOUTH_SHARE:
        air = ellipsoid((0, chin[0] + 40 * s, -2 * s), (15 * s, 24 * s, rng.uniform(1.5, 4.0)))
        canvas.paint([air], frame, AIR, soft=True)
    canvas.paint(skull_base(s), frame, SKULL)
    canvas.paint(mirrored([ellipsoid((50 * s, 1 * s, 13 * s), (6 * s, 8 * s, 13 * s))]), frame, CELLS, soft=True)
    paint_sinuses(canvas, frame, s, chin[0])
    canvas.paint(mandible(s, *chin), frame, JAW)
    canvas.paint(upper_jaw(s, chin[0]), frame, JAW)
    paint_teeth(canvas, frame, s, chin, rng)
    paint_larynx(canvas, spine, rng)


def paint_sinuses(canvas: Canvas, frame: Frame, s: float, chin_y: float) -> None:
    """The maxillary sinuses with their thin walls, the septum of the nose, and the pterygoid plates."""
    place, radii = (27 * s, chin_y + 40 * s, 27 * s), (13 * s, 18 * s, 15 * s)
    canvas.paint(mirrored([shell(place, radii, 1.4)]), frame, THIN)
    inside = (radii[0] - 1, radii[1] - 1, radii[2] - 1)
    canvas.paint(mirrored([ellipsoid(place, inside)]), frame, AIR, soft=True)
    septum = box((0, chin_y + 27 * s, 20 * s), (0.9, 21 * s, 10 * s), 0.8)
    plate = beam((13 * s, chin_y + 56 * s, 2 * s), (15 * s, chin_y + 58 * s, 24 * s), (1.1, 7.0), up=(0, 1, 0))
    canvas.paint([septum, *mirrored([plate])], frame, THIN)


def skull_base(s: float) -> list[np.ndarray]:
    """Occipital bone with the foramen magnum, condyles, clivus, petrous bones, mastoids and styloid processes."""
    side = [
        ellipsoid((16.5 * s, -3 * s, 13.5 * s), (5.5 * s, 11 * s, 6.5 * s), blend=3),
        ellipsoid((50 * s, 0, 14 * s), (9 * s, 12 * s, 19 * s), blend=4),
        beam((20 * s, -18 * s, 24 * s), (56 * s, -2 * s, 30 * s), (8 * s, 8 * s), blend=4),
        beam((31 * s, -15 * s, 20 * s), (27 * s, -29 * s, -14 * s), (1.8, 1.8), (1.2, 1.2), blend=2),
    ]
    return [
        shell((0, 20 * s, 64 * s), (68 * s, 84 * s, 50 * s), 5.0),
        box((0, -62 * s, 60 * s), (90, 42 * s, 90), blend=2, cut=True),
        beam((0, -17 * s, 15 * s), (0, -36 * s, 44 * s), (11 * s, 3.4 * s), (14 * s, 6 * s), up=(0, 1, 0), blend=4),
        *mirrored(side),
        beam((0, 1 * s, -20), (0, 1 * s, 34 * s), (14.5 * s, 17 * s), up=(0, 1, 0), blend=2, cut=True),
    ]


def mandible(s: float, chin_y: float, chin_z: float) -> list[np.ndarray]:
    """Body and rami of the lower jaw; the body follows the arch of the teeth and parts from it behind."""
    z = chin_z
    arch = [
        (0.0, chin_y, z),
        (8 * s, chin_y + 1.6 * s, z),
        (16 * s, chin_y + 7 * s, z),
        (23 * s, chin_y + 16 * s, z + 1 * s),
        (29 * s, chin_y + 27 * s, z + 3 * s),
        (35 * s, chin_y + 39 * s, z + 5 * s),
        (41 * s, chin_y + 51 * s, z + 10 * s),
        (46 * s, chin_y + 62 * s, z + 17 * s),
    ]
    ramus = beam(arch[-1], (50 * s, chin_y + 72 * s, z + 60 * s), (4.0, 15 * s), (3.2, 12 * s), up=(0, 1, 0), blend=5)
    return mirrored([*chain(arch, (4.8, 12.5 * s), blend=1), ramus])


def upper_jaw(s: float, chin_y: float) -> list[np.ndarray]:
    """Alveolar arch of the maxilla and the hard palate."""
    y = chin_y + 3 * s
    arch = [(0.0, y, 3 * s), (15 * s, y + 7 * s, 3 * s), (25 * s, y + 25 * s, 3 * s), (29 * s, y + 44 * s, 4 * s)]
    palate = box((0, y + 26 * s, 8 * s), (24 * s, 24 * s, 1.6), 1.2)
    return [*mirrored(chain(arch, (5.0, 7.0 * s))), palate]


def nasal_air(s: float) -> list[np.ndarray]:
    """Nasal cavities behind the upper jaw, open into the pharynx."""
    side = beam((9 * s, -88 * s, 20 * s), (8 * s, -34 * s, 20 * s), (5 * s, 8 * s), blend=3)
    return [*mirrored([side]), ellipsoid((0, -30 * s, 14 * s), (11 * s, 7 * s, 13 * s), blend=4)]


def paint_teeth(canvas: Canvas, frame: Frame, s: float, chin: tuple[float, float], rng: np.random.Generator) -> None:
    """Both rows of teeth; some are missing, some carry metal."""
    rows = ((chin[0] + 1.0, chin[1] + 2 * s, chin[1] + 22 * s, 30.0), (chin[0] + 4 * s, 10 * s, -9 * s, 27.0))
    metal_share = rng.choice([0.0, 0.0, 0.08, 0.25])
    lost_share = rng.choice([0.03, 0.12, 0.5], p=[0.6, 0.3, 0.1])
    for y, root, crown, width in rows:
        roots: list[np.ndarray] = []
        sound: list[np.ndarray] = []
        filled: list[np.ndarray] = []
        for x, depth, thick in _arch_places(y, width * s, 47 * s):
            chance = rng.random()
            neck = 0.45 * root + 0.55 * crown
            if chance < lost_share:
                continue
            # A molar is as wide along the arch as across; an incisor is a blade.
            across = 0.5 * thick + 1.9
            roots.append(beam((x, depth, root), (x, depth, neck), (1.1, 1.1), (0.85 * thick, across), blend=0.3))
            tooth = beam((x, depth, neck), (x, depth, crown), (0.9 * thick, across), (thick, across - 0.6), blend=0.3)
            (filled if chance > 1 - metal_share else sound).append(tooth)
        for parts, material in ((roots, DENTINE), (sound, ENAMEL), (filled, FILLING)):
            if parts:
                canvas.paint(parts, frame, material)


def _arch_places(y: float, width: float, depth: float, count: int = 14) -> list[tuple[float, float, float]]:
    """x, y and half width in mm of teeth along a parabolic arch, the molars wider than the incisors."""
    t = np.linspace(-1, 1, 201)
    xs, ys = width * np.sign(t) * np.abs(t) ** 0.85, y + depth * np.abs(t) ** 2
    length = np.concatenate([[0], np.cumsum(np.hypot(np.diff(xs), np.diff(ys)))])
    # Shares of the arch: an incisor takes about 0.6 of a molar.
    ease = np.linspace(-1, 1, count)
    place = np.interp(0.5 + 0.5 * np.sign(ease) * np.abs(ease) ** 1.25, [0, 1], [0.02, 0.98]) * length[-1]
    half = np.abs(np.gradient(place)) * 0.44
    return list(zip(np.interp(place, length, xs), np.interp(place, length, ys), half, strict=True))


def paint_larynx(canvas: Canvas, spine: Spine, rng: np.random.Generator) -> None:
    """Hyoid and thyroid cartilage in front of C3 to C6."""
    s = spine.scale
    hyoid = spine.frames[2].origin + np.array([0.0, -40.0 * s, -8.0 + rng.uniform(-5, 5)])
    arch = [(0.0, -8.0 * s, 0.0), (9 * s, -4.0 * s, 0.0), (16 * s, 8 * s, 1.0), (19 * s, 22 * s, 4.0)]
    canvas.paint(mirrored(chain(arch, (1.8, 2.6))), Frame(hyoid, np.eye(3)), Material(core_hu=200, joint_mm=0))
    larynx = spine.frames[4].origin + np.array([0.0, -38.0 * s, -4.0])
    plate = [(0.0, -8.0 * s, 0.0), (8 * s, 0.0, 0.0), (17 * s, 16 * s, 0.0)]
    calcified = CARTILAGE if rng.random() < 0.6 else Material(cortex_hu=600, core_hu=150, joint_mm=0)
    canvas.paint(mirrored(chain(plate, (1.3, 11.0 * s))), Frame(larynx, np.eye(3)), calcified)
    cricoid = spine.frames[5].origin + np.array([0.0, -31.0 * s, -6.0])
    ring = [
        (0.0, -11 * s, -3.0),
        (8 * s, -6 * s, -1.0),
        (10 * s, 3 * s, 1.0),
        (6 * s, 9.5 * s, 4.0),
        (0.0, 11 * s, 5.0),
    ]
    canvas.paint(mirrored(chain(ring, (1.6, 4.0))), Frame(cricoid, np.eye(3)), calcified)
