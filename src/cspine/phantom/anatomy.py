"""One patient's neck on a voxel grid: soft tissue, head, spine, ribs, and the fractures given."""

from dataclasses import replace

import numpy as np

from cspine.phantom.canvas import Canvas, Frame, Grid, Material, noise_table
from cspine.phantom.head import paint_head
from cspine.phantom.solids import beam, ellipsoid, mirrored
from cspine.phantom.spine import Spine, draw_spine
from cspine.phantom.tissue import paint_table, paint_tissue
from cspine.phantom.vertebrae import Size, disc, rib, vertebra

DISC_MATERIAL = Material(cortex_hu=95, core_hu=80, cortex_mm=1.0, texture_hu=6, joint_mm=0)
MUSCLE_HU = 55.0
DENS_HU = 250.0  # by which the dens, within its shell, is denser than a body


def draw_patient(rng: np.random.Generator) -> tuple[Spine, Material, dict[str, int]]:
    """Spine, bone quality and the seeds of the parts, so that one part's draws do not shift another's."""
    spine = draw_spine(rng)
    density = float(np.clip(rng.normal(1.17 - 0.36 * spine.age, 0.1), 0.7, 1.35))
    bone = Material(
        cortex_hu=900 * density**0.5,
        core_hu=330 * density,
        cortex_mm=rng.uniform(0.6, 0.95),
        texture_hu=rng.uniform(45, 80),
        surface_mm=0.16,
        joint_mm=rng.uniform(1.1, 1.8),
        back_y_mm=4.0,
        back_cortex_mm=rng.uniform(1.5, 2.2),
    )
    seeds = {
        name: int(rng.integers(1 << 31))
        for name in ("noise", "tissue", "head", "vertebrae", "ribs", "ossicle", "table", "shoulders")
    }
    return spine, bone, seeds


def render(grid: Grid, spine: Spine, bone: Material, seeds: dict[str, int], cracks: dict[int, np.ndarray]) -> Canvas:
    """Paint the whole neck; `cracks` maps a level (0 = C1) to its rows for `Canvas.paint`."""
    rngs = {name: np.random.default_rng(seed) for name, seed in seeds.items()}
    canvas = Canvas(grid, noise_table(rngs["noise"]))
    paint_tissue(canvas, spine, rngs["tissue"])
    paint_lungs(canvas, spine)
    paint_head(canvas, spine, rngs["head"])
    for size, below, frame in zip(spine.sizes[1:-1], spine.sizes[2:], spine.frames[1:-1], strict=True):
        canvas.paint(disc(size, below), frame, DISC_MATERIAL, soft=True)
    for level, (parts, frame) in enumerate(zip(vertebrae(spine, seeds), spine.frames, strict=True)):
        material = _material(bone, spine.sizes[level], spine.wear[level])
        canvas.paint(parts, frame, material, label=level + 1, cracks=cracks.get(level))
    for size, frame in zip(spine.sizes[7:], spine.frames[7:], strict=True):
        canvas.paint(rib(size, rngs["ribs"]), frame, bone)
    paint_shoulders(canvas, spine, bone, rngs["shoulders"])
    paint_nuchal_ossicle(canvas, spine, bone, rngs["ossicle"])
    paint_table(canvas, spine, rngs["table"])
    return canvas


def vertebrae(spine: Spine, seeds: dict[str, int]) -> list[list[np.ndarray]]:
    """The primitives of C1 to T3, each in its own frame."""
    rng = np.random.default_rng(seeds["vertebrae"])
    kinds = zip(spine.sizes, spine.pitches, spine.wear, strict=True)
    return [vertebra(size, pitch, wear, rng) for size, pitch, wear in kinds]


def render_level(
    grid: Grid, spine: Spine, bone: Material, seeds: dict[str, int], level: int, cracks: np.ndarray | None = None
) -> Canvas:
    """One vertebra alone in soft tissue."""
    canvas = Canvas(grid, noise_table(np.random.default_rng(seeds["noise"])))
    canvas.hu[:] = MUSCLE_HU
    material = _material(bone, spine.sizes[level], spine.wear[level])
    canvas.paint(vertebrae(spine, seeds)[level], spine.frames[level], material, label=level + 1, cracks=cracks)
    return canvas


def _material(bone: Material, size: Size, wear: float) -> Material:
    """A level's bone: C1 and the dens are mostly cortical, worn end plates are dense."""
    if size.name == "C1":
        return replace(bone, back_y_mm=-40.0, back_cortex_mm=1.7)
    if size.name == "C2":
        return replace(bone, back_y_mm=-7.0, end_z_mm=size.height / 2 + 3.0, end_hu=DENS_HU)
    return replace(bone, end_z_mm=size.height / 2 - 2.2, end_hu=60 + 260 * wear)


def paint_lungs(canvas: Canvas, spine: Spine) -> None:
    """The apices of the lungs beside T1 to T3."""
    origin = spine.frames[9].origin
    lung = ellipsoid((38.0, -12.0, -14.0), (27.0, 36.0, 52.0))
    lung_air = Material(cortex_hu=-840, core_hu=-860, texture_hu=15, surface_mm=0.5, joint_mm=0)
    canvas.paint(mirrored([lung]), Frame(origin, np.eye(3)), lung_air, soft=True)


def paint_shoulders(canvas: Canvas, spine: Spine, bone: Material, rng: np.random.Generator) -> None:
    """Clavicles, scapulae and the heads of the humeri; most fields of view show only their inner parts.

    Arms are pulled down, in some patients far, so that their height tells little of the levels.
    """
    place = spine.frames[8].origin - np.array([0.0, 0.0, abs(rng.normal(0, 12))])
    side = [
        beam((18.0, -62.0, -16.0), (55.0, -48.0, 4.0), (5.5, 6.0), blend=3),
        beam((55.0, -48.0, 4.0), (110.0, -15.0, 22.0), (5.5, 5.0), blend=3),
        beam((110.0, -15.0, 22.0), (128.0, 12.0, 28.0), (7.0, 4.5), blend=3),
        beam((134.0, -2.0, -2.0), (140.0, -2.0, -70.0), (23.0, 23.0), (13.0, 13.0), blend=3),
        beam((128.0, 20.0, 22.0), (100.0, 42.0, 8.0), (5.0, 7.0), (3.0, 8.0), blend=3),
        beam((100.0, 42.0, 8.0), (62.0, 56.0, -14.0), (3.0, 8.0), (2.4, 5.0), blend=3),
        beam((108.0, 8.0, -8.0), (64.0, 50.0, -48.0), (2.6, 26.0), up=(0, 0, 1), blend=3),
    ]
    canvas.paint(mirrored(side), Frame(place, np.eye(3)), bone)


def paint_nuchal_ossicle(canvas: Canvas, spine: Spine, bone: Material, rng: np.random.Generator) -> None:
    """In one of six, a smooth piece of bone in the ligament behind C5 or C6: not a fractured spinous process."""
    level = int(rng.integers(4, 6))
    size = spine.sizes[level]
    place = (0.0, size.lamina_y + size.spinous + rng.uniform(8, 13), -10.0)
    shape = ellipsoid(place, (rng.uniform(1.5, 2.5), rng.uniform(1.8, 3.2), rng.uniform(3, 6)))
    if rng.random() < 1 / 6:
        canvas.paint([shape], spine.frames[level], bone)
