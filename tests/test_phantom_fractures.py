"""Fractures of the phantom: where each pattern lies, what it does to the bone, and what is written about it."""

from dataclasses import replace

import numpy as np
import pytest

from cspine.phantom.anatomy import draw_patient, render, render_level, vertebrae
from cspine.phantom.canvas import Canvas, Grid
from cspine.phantom.cracks import CRUSH, MARROW_HU
from cspine.phantom.fractures import (
    FRACTURE_COLUMNS,
    Fracture,
    cracks_by_level,
    describe,
    draw_fracture,
    draw_fractures,
    kinds_of,
    mark_missed,
)
from cspine.phantom.visibility import visibility

LEVEL_OF = {
    **dict.fromkeys(("anterior_arch", "posterior_arch", "jefferson", "lateral_mass"), 0),
    **dict.fromkeys(("dens_tip", "dens", "dens_base", "hangman"), 1),
    **dict.fromkeys(("teardrop", "compression", "lamina", "facet"), 4),
    **dict.fromkeys(("burst", "pedicle", "transverse"), 5),
    "spinous": 6,
}
SPINE, BONE, SEEDS = draw_patient(np.random.default_rng(0))
SOLIDS = vertebrae(SPINE, SEEDS)


def grid_of(level: int, step_mm: float = 1.0, width_mm: float = 84.0) -> Grid:
    """A grid about one level, with its neighbours' edges."""
    x, y, z = SPINE.frames[level].origin
    deep, count = round(52 / step_mm), round(width_mm / step_mm)
    return Grid((deep, count, count), step_mm, step_mm, (x - width_mm / 2, y - 28.0, z + 26.0))


def broken(kind: str, seed: int = 0) -> Fracture:
    return draw_fracture(kind, LEVEL_OF[kind], 1, SPINE, SOLIDS, np.random.default_rng(seed))


def widened(fracture: Fracture, gap_mm: float) -> Fracture:
    """The same fracture with another gap and without displacement."""
    rows = []
    for row in fracture.cracks:
        changed = row.copy()
        if row[0] != CRUSH:
            changed[7], changed[8:14] = gap_mm, 0.0
        rows.append(changed)
    return replace(fracture, gap_mm=gap_mm, cracks=tuple(rows))


def alone(fracture: Fracture | None, level: int, step_mm: float = 1.0) -> Canvas:
    cracks = None if fracture is None else np.stack(fracture.cracks)
    return render_level(grid_of(level, step_mm), SPINE, BONE, SEEDS, level, cracks)


def local_mm(canvas: Canvas, marked: np.ndarray, level: int) -> np.ndarray:
    """The marked voxels in mm of the vertebra's frame, (n, 3) x, y, z."""
    grid, frame = canvas.grid, SPINE.frames[level]
    steps = np.array([grid.pixel_mm, grid.pixel_mm, -grid.spacing_mm])
    return (np.array(grid.origin) + np.argwhere(marked)[:, ::-1] * steps - frame.origin) @ frame.axes.T


def test_every_type_is_tested_and_has_a_level() -> None:
    assert set(LEVEL_OF) == {kind for size in SPINE.sizes[:7] for kind in kinds_of(size.name)}


@pytest.mark.parametrize("kind", LEVEL_OF)
def test_truth_lies_in_its_own_level_on_part_of_its_slices(kind: str) -> None:
    level = LEVEL_OF[kind]
    canvas = alone(broken(kind), level)
    marked = canvas.truth == 1
    assert marked.sum() > 5
    assert set(np.unique(canvas.label[marked])) == {level + 1}
    slices, all_slices = marked.any((1, 2)).sum(), (canvas.label == level + 1).any((1, 2)).sum()
    # A lateral mass may be split from top to bottom, and C1 is no higher than it.
    assert 0 < slices < all_slices + (kind == "lateral_mass")


def test_truth_stays_in_its_level_among_neighbours() -> None:
    fractures = draw_fractures((2, 3, 4), SPINE, SOLIDS, np.random.default_rng(0))
    canvas = render(grid_of(3), SPINE, BONE, SEEDS, cracks_by_level(fractures))
    for fracture in fractures:
        assert set(np.unique(canvas.label[canvas.truth == fracture.number])) == {fracture.level + 1}


@pytest.mark.parametrize("kind", LEVEL_OF)
def test_bone_far_from_the_fracture_is_as_it_was(kind: str) -> None:
    level, fracture = LEVEL_OF[kind], broken(kind)
    changed = np.abs(alone(fracture, level).hu - alone(None, level).hu) > 0.5
    points = local_mm(alone(None, level), changed, level)
    assert len(points)
    outside = np.ones(len(points), bool)
    for row in fracture.cracks:
        if row[0] == CRUSH:
            outside &= ~((points[:, 2] > row[1] - 2) & (np.abs(points[:, 0]) < row[8] + 4))
        else:
            folded = np.abs(points[:, 0]) if row[21] else points[:, 0]
            local = np.column_stack([folded, points[:, 1:]])
            outside &= np.linalg.norm(local - row[14:17], axis=1) > row[17] + 3.0
    assert outside.mean() < 0.01


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("kind", "is_there"),
    [
        ("anterior_arch", lambda p, _: p[:, 1].max() < 0),
        ("posterior_arch", lambda p, _: p[:, 1].min() > 0),
        ("jefferson", lambda p, _: p[:, 1].min() < -8 and p[:, 1].max() > 6),
        ("dens_tip", lambda p, size: p[:, 2].min() > size.height / 2 + 3),
        ("dens", lambda p, size: size.height / 2 - 4 < p[:, 2].mean() < size.height / 2 + 8),
        ("dens_base", lambda p, size: -2 < p[:, 2].mean() < size.height / 2 and np.ptp(p[:, 0]) > size.bottom_width),
        ("hangman", lambda p, _: (np.abs(p[:, 0]) > 4).mean() > 0.9 and p[:, 0].min() < 0 < p[:, 0].max()),
        # With the body split behind it the mean lies anywhere; the corner it is named for is always in it.
        ("teardrop", lambda p, size: ((p[:, 1] < -0.6 * size.half_depth) & (p[:, 2] < -size.height / 4)).sum() > 20),
        ("compression", lambda p, size: p[:, 2].mean() > -0.3 * size.height and p[:, 1].mean() < 0.5 * size.half_depth),
        ("lamina", lambda p, size: p[:, 1].min() > size.half_depth),
        ("facet", lambda p, _: np.abs(p[:, 0]).min() > 5 and p[:, 1].mean() > 0),
        ("pedicle", lambda p, size: 3 < np.abs(p[:, 0]).mean() < size.pillar[0] + 4 and p[:, 1].mean() > 0),
        ("transverse", lambda p, size: np.abs(p[:, 0]).min() > 0.4 * size.bottom_width),
        ("spinous", lambda p, size: p[:, 1].min() > size.half_depth + size.canal_depth),
    ],
)
def test_truth_lies_where_the_pattern_says(kind: str, is_there, seed: int) -> None:  # type: ignore[no-untyped-def]
    level = LEVEL_OF[kind]
    canvas = alone(broken(kind, seed), level)
    assert is_there(local_mm(canvas, canvas.truth > 0, level), SPINE.sizes[level])


@pytest.mark.parametrize("seed", range(3))
def test_a_burst_body_narrows_the_canal(seed: int) -> None:
    size = SPINE.sizes[5]
    sound, burst = (alone(f, 5) for f in (None, broken("burst", seed)))

    def room_mm(canvas: Canvas) -> float:
        points = local_mm(canvas, canvas.label == 6, 5)
        middle = points[(np.abs(points[:, 0]) < 3) & (points[:, 2] > 0) & (points[:, 2] < size.height / 2)]
        behind = middle[middle[:, 1] > size.canal_y]
        return behind[:, 1].min() - middle[middle[:, 1] < size.canal_y][:, 1].max()

    assert room_mm(burst) < room_mm(sound) - 1.0


@pytest.mark.parametrize("seed", range(3))
def test_compression_takes_height_from_the_front(seed: int) -> None:
    fracture = broken("compression", seed)
    sound, wedge = (alone(f, 4) for f in (None, fracture))

    def height_mm(canvas: Canvas, front: bool) -> float:
        points = local_mm(canvas, canvas.label == 5, 4)
        depth = 0.55 * SPINE.sizes[4].half_depth
        column = (np.abs(points[:, 0]) < 2) & (np.abs(points[:, 1] - (-depth if front else depth)) < 1.0)
        return np.ptp(points[column, 2])

    front, back = (height_mm(sound, where) - height_mm(wedge, where) for where in (True, False))
    assert front >= 0.5 * fracture.displacement_mm
    assert front > back


def test_a_jefferson_fracture_spreads_the_lateral_masses() -> None:
    def width_mm(canvas: Canvas) -> float:
        return np.ptp(local_mm(canvas, canvas.label == 1, 0)[:, 0])

    fractures = [broken("jefferson", seed) for seed in range(30)]
    both = next(f for f in fractures if f.cracks[0][21] and f.displacement_mm > 2.5)
    for row in both.cracks:
        row[7] = 0.3  # so that the width comes from the masses' movement, not from the gaps
    # A voxel of 1 mm at either end may hide part of it.
    assert width_mm(alone(both, 0)) > width_mm(alone(None, 0)) + 0.5 * both.displacement_mm


def test_a_hangman_fracture_slides_the_body_forwards() -> None:
    def back_mm(canvas: Canvas) -> float:
        points = local_mm(canvas, canvas.label == 2, 1)
        body = points[(np.abs(points[:, 0]) < 3) & (points[:, 2] < 0) & (points[:, 1] < 8)]
        return body[:, 1].min()

    fracture = next(f for f in (broken("hangman", seed) for seed in range(30)) if f.displacement_mm > 2)
    assert back_mm(alone(fracture, 1)) < back_mm(alone(None, 1)) - 1.0


def test_wider_gaps_are_darker_and_easier_to_see() -> None:
    fracture = broken("dens", 1)
    darkness, seen = [], []
    for gap_mm in (0.3, 0.8, 2.0):
        changed = widened(fracture, gap_mm)
        canvas = alone(changed, 1, 0.5)
        darkness.append(canvas.hu[canvas.truth > 0].mean())
        seen.append(visibility(changed, canvas, (SPINE, BONE, SEEDS), 0.5, 25.0))
    assert darkness == sorted(darkness, reverse=True)
    assert abs(np.percentile(canvas.hu[canvas.truth > 0], 20) - MARROW_HU) < 60
    assert seen == sorted(seen)
    assert seen[0] < 0.5 * seen[-1]


def test_coarse_voxels_dilute_a_hairline_but_still_mark_all_of_it() -> None:
    hairline = widened(broken("dens", 1), 0.3)
    fine, coarse = (alone(hairline, 1, step) for step in (0.5, 2.0))
    drop = [visibility(hairline, canvas, (SPINE, BONE, SEEDS), 0.5, 25.0) for canvas in (fine, coarse)]
    assert drop[1] < 0.6 * drop[0]
    # One layer of voxels: the area of the crack, whatever the voxels' size.
    areas = [(c.truth > 0).any(0).sum() * c.grid.pixel_mm**2 for c in (fine, coarse)]
    assert areas[1] == pytest.approx(areas[0], rel=0.35)


def test_every_fracture_has_truth_even_between_voxels() -> None:
    rng = np.random.default_rng(0)
    fractures = draw_fractures((2, 3, 4), SPINE, SOLIDS, rng)
    canvas = render(grid_of(3, 6.0), SPINE, BONE, SEEDS, cracks_by_level(fractures))
    canvas.truth[:] = 0
    mark_missed(canvas, fractures, SPINE)
    for fracture in fractures:
        marked = canvas.truth == fracture.number
        assert marked.sum() == 1
        assert canvas.label[marked][0] == fracture.level + 1
        away = local_mm(canvas, marked, fracture.level)[0] - fracture.place
        assert np.linalg.norm(away) < 15.0


def test_the_table_says_what_the_voxels_hold() -> None:
    fracture = broken("facet", 2)
    canvas = alone(fracture, 4)
    deep = len(canvas.truth)
    row = describe(fracture, canvas, np.arange(deep + 1, 1, -1), 1.234)
    assert tuple(row) == FRACTURE_COLUMNS
    slices = np.flatnonzero((canvas.truth > 0).any((1, 2)))
    assert (row["level"], row["type"], row["gap_mm"]) == ("C5", "facet", fracture.gap_mm)
    # Descending file numbers: the first slice in the table is the lowest number, wherever that lies.
    assert (row["first_slice"], row["last_slice"]) == (deep + 1 - slices[-1], deep + 1 - slices[0])
    assert row["n_slices"] == len(slices)
    assert row["volume_mm3"] == pytest.approx((canvas.truth > 0).sum())
    assert row["visibility"] == 1.23


def test_gaps_run_from_hairlines_to_wide_and_some_pieces_stay_in_place() -> None:
    rng = np.random.default_rng(1)
    found = [f for _ in range(150) for f in draw_fractures((0, 1, 5), SPINE, SOLIDS, rng)]
    gaps = np.array([f.gap_mm for f in found if f.kind != "compression"])
    assert gaps.min() >= 0.3
    assert gaps.max() <= 3.0
    assert 0.05 < (gaps < 0.6).mean() < 0.4
    assert 0.05 < (gaps > 1.8).mean() < 0.4
    moved = np.array([f.displacement_mm for f in found])
    assert 0.1 < (moved < 0.1).mean() < 0.6
    assert moved.max() < 7.0
    numbers = [f.number for f in draw_fractures((0, 1, 5), SPINE, SOLIDS, rng)]
    assert numbers == list(range(1, len(numbers) + 1))
