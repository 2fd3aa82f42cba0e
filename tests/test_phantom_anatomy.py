"""The phantom's anatomy: seven vertebrae that can be told apart, a free canal, tissue of the right density."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from cspine.phantom.anatomy import draw_patient, render
from cspine.phantom.canvas import Canvas, Frame, Grid, Material
from cspine.phantom.labels import plan_study
from cspine.phantom.muscles import choose, draw_muscles, muscle_distance
from cspine.phantom.solids import canal, ellipsoid, primitive_distance, vertebral_body
from cspine.phantom.spine import Spine, draw_spine
from cspine.phantom.vertebrae import SIZES, vertebra

STEP_MM = 1.0
AIR, FAT, MUSCLE = (-1024, -800), (-140, -60), (30, 90)


@pytest.fixture(scope="module")
def patient() -> tuple[Spine, Canvas]:
    """Patient 4 of seed 5 without fractures, sampled at 1 mm in all directions over 160 x 200 mm."""
    spine, bone, seeds = draw_patient(plan_study(5, "train", 4).rng("anatomy"))
    top, bottom = spine.frames[0].origin[2] + 35, spine.frames[7].origin[2]
    x, y, _ = spine.frames[3].origin
    shape = (round((top - bottom) / STEP_MM), 200, 160)
    grid = Grid(shape, STEP_MM, STEP_MM, (x - 80, y - 110, top))
    return spine, render(grid, spine, bone, seeds, {})


def voxel(canvas: Canvas, spine: Spine, level: int, local: tuple[float, float, float]) -> tuple[int, int, int]:
    """The voxel (z, y, x) of a point given in a level's own millimetres."""
    x, y, z = spine.frames[level].to_world(np.array(local)) - np.array(canvas.grid.origin)
    return round(-z / STEP_MM), round(y / STEP_MM), round(x / STEP_MM)


def test_levels_follow_each_other_and_none_touches_the_next(patient: tuple[Spine, Canvas]) -> None:
    _, canvas = patient
    places = [np.nonzero(canvas.label == level)[0] for level in range(1, 8)]
    centres = [place.mean() for place in places]
    assert centres == sorted(centres)
    cross = ndimage.generate_binary_structure(3, 1)
    for level in range(1, 8):
        around = ndimage.binary_dilation(canvas.label == level, cross)
        assert set(np.unique(canvas.label[around])) <= {0, level}


def test_the_canal_is_free_of_bone_from_c1_to_c7_and_holds_the_cord(patient: tuple[Spine, Canvas]) -> None:
    spine, canvas = patient
    for level in range(7):
        y = 6.0 if level == 0 else spine.sizes[level].canal_y
        for z in (-4.0, 0.0, 4.0):
            k, j, i = voxel(canvas, spine, level, (0.0, y, z))
            assert not canvas.label[k, j - 3 : j + 4, i - 3 : i + 4].any()
            assert 0 < canvas.hu[k, j, i] < 60


def test_c1_is_a_ring_without_a_body_around_the_dens_of_c2(patient: tuple[Spine, Canvas]) -> None:
    spine, canvas = patient
    k, j, i = voxel(canvas, spine, 0, (0.0, -18.0, 0.0))
    ring = canvas.label == 1
    assert ring[k - 2 : k + 3, j - 2 : j + 3, i].any(), "no anterior arch"
    dens = np.nonzero((canvas.label == 2) & (np.arange(len(ring))[:, None, None] <= k + 2))
    assert len(dens[0]) > 100, "C2 has no dens at the height of C1"
    assert dens[1].mean() > j + 3, "the dens lies before the arch"
    flat = ndimage.binary_closing(ring.any(0), iterations=2)
    holes = ndimage.binary_fill_holes(flat) & ~flat
    assert ndimage.label(holes)[1] >= 1
    assert holes.sum() > 500, "seen from above, C1 is no ring"


@pytest.mark.parametrize("level", [2, 3, 4, 5])
def test_transverse_foramina_are_holes_through_bone(level: int) -> None:
    size = SIZES[level]
    spine = draw_spine(np.random.default_rng(0))
    rows = np.stack(vertebra(size, spine.pitches[level], 0.0, np.random.default_rng(1)))
    grid = Grid((60, 160, 160), 0.5, 0.5, (-40.0, -30.0, 15.0))
    canvas = Canvas(grid, np.zeros((64, 64, 64), np.float32))
    canvas.paint(list(rows), Frame(np.zeros(3), np.eye(3)), Material(), label=level + 1)
    holes = 0
    for image in canvas.label > 0:
        names, count = ndimage.label(ndimage.binary_fill_holes(image) & ~image)
        for hole in range(1, count + 1):
            y, x = (np.array(np.nonzero(names == hole)).mean(1) - (60, 80)) * 0.5
            holes = max(holes, int((names == hole).sum() * 0.25)) if abs(x) > 8 and y < 8 else holes
    # A foramen of 3 mm radius has 28 mm2.
    assert 12 < holes < 45


def test_hounsfield_units_of_the_tissues(patient: tuple[Spine, Canvas]) -> None:
    spine, canvas = patient
    hu = canvas.hu
    inside = ndimage.binary_erosion(canvas.label > 0, iterations=1)
    assert 150 < np.median(hu[inside]) < 900
    shares = [((hu > low) & (hu < high)).mean() for low, high in (AIR, FAT, MUSCLE)]
    assert shares[0] > 0.2
    assert 0.05 < shares[1] < 0.4
    assert shares[2] > 0.15
    # The shell of a body is denser than its core, the arch denser than the body.
    k, j, i = voxel(canvas, spine, 3, (0.0, 0.0, 0.0))
    core = hu[k - 2 : k + 3, j - 3 : j + 4, i - 3 : i + 4].mean()
    arch = hu[(canvas.label == 4) & (np.arange(hu.shape[1])[:, None] > j + 12)]
    assert np.percentile(arch, 75) > core + 150


def test_wear_adds_bone_at_the_edges_but_no_truth() -> None:
    size = SIZES[4]
    grid = Grid((70, 120, 120), 0.5, 0.5, (-30.0, -30.0, 17.0))
    volumes = []
    for wear in (0.0, 1.0):
        canvas = Canvas(grid, np.zeros((64, 64, 64), np.float32))
        parts = vertebra(size, 18.0, wear, np.random.default_rng(3))
        canvas.paint(parts, Frame(np.zeros(3), np.eye(3)), Material(), label=5)
        volumes.append(int((canvas.label == 5).sum()))
        assert not canvas.truth.any()
    assert volumes[1] > 1.02 * volumes[0]


def test_primitives_measure_about_true_distances() -> None:
    body = np.stack([vertebral_body((0, 0, 0), 6.0, (10.0, 8.0), (10.0, 8.0), waist=0.0, dish=0.0)])
    assert primitive_distance(15.0, 0.0, 0.0, body, 0) == pytest.approx(5.0, abs=0.6)
    assert primitive_distance(0.0, 0.0, 9.0, body, 0) == pytest.approx(3.0, abs=0.1)
    tube = np.stack([canal((0, 0, 0), 12.0, 7.0, 9.0)])
    assert primitive_distance(0.0, -10.0, 50.0, tube, 0) == pytest.approx(3.0, abs=0.1), "the canal runs along all of z"
    assert primitive_distance(0.0, 0.0, 0.0, tube, 0) < -2.5
    left, right = (primitive_distance(sign * 8.0, 2.0, 0.0, tube, 0) for sign in (-1, 1))
    assert left == right
    # A corner of the triangle lies in front, the apex behind: wide before, narrow behind.
    assert primitive_distance(9.0, -4.0, 0.0, tube, 0) < 0 < primitive_distance(9.0, 6.0, 0.0, tube, 0)
    ball = np.stack([ellipsoid((1, 2, 3), (4.0, 4.0, 4.0))])
    assert primitive_distance(1.0, 2.0, 13.0, ball, 0) == pytest.approx(6.0, abs=1e-6)


def test_the_muscles_chosen_for_a_tile_are_all_that_matter_in_it() -> None:
    rng = np.random.default_rng(0)
    muscles, hu = draw_muscles(np.array([1.0, 4.0, 7.5]), np.zeros((3, 2)), 1.0, rng)
    assert muscles.shape[:2] == (3, len(hu))
    chosen = np.empty(len(hu), np.int64)
    reach, plump = 4.0, 5.0
    for rows in muscles:
        for x, y in rng.uniform(-60, 60, (60, 2)):
            kept = set(chosen[: choose(x, y, reach, plump, rows, chosen)].tolist())
            dx, dy = rng.uniform(-1, 1, 2) * reach / 1.5
            distances = np.array([muscle_distance(x + dx, y + dy, row) for row in rows])
            nearest = np.argsort(distances)[:2]
            assert {int(m) for m in nearest if distances[m] < plump} <= kept


def test_a_part_of_the_patient_does_not_depend_on_the_draws_of_another() -> None:
    spine, bone, seeds = draw_patient(np.random.default_rng(7))
    grid = Grid((6, 80, 80), 4.0, 2.5, (spine.frames[3].origin[0] - 100, spine.frames[3].origin[1] - 100, 20.0))
    first = render(grid, spine, bone, seeds, {})
    other = render(grid, spine, bone, replace_seed(seeds, "head"), {})
    assert np.array_equal(first.label, other.label)
    older = render(grid, replace(spine, wear=(1.0,) * 10), bone, seeds, {})
    assert not np.array_equal(first.hu, older.hu)


def replace_seed(seeds: dict[str, int], name: str) -> dict[str, int]:
    return seeds | {name: seeds[name] + 1}
