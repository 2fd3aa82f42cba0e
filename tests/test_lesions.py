from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cspine.anatomy import LEVELS
from cspine.data.geometry import Geometry
from cspine.data.preprocess import Crop
from cspine.errors import UserError
from cspine.lesions import (
    CENTRE,
    GREATEST,
    LEAST,
    LESION_COLUMNS,
    Linking,
    find_lesions,
    levels_by_map,
    levels_by_presence,
    link_boxes,
)
from cspine.level_maps import level_map
from cspine.tables import FOUND_BOXES, STUDY, read_found_boxes

COLUMNS = list(FOUND_BOXES[1:])


def geometry(z_mm, numbers=None, tilt_deg: float = 0.0, shifts_px=None) -> Geometry:
    angle = np.deg2rad(tilt_deg)
    column = np.array([0.0, np.cos(angle), np.sin(angle)])
    normal = np.array([0.0, -np.sin(angle), np.cos(angle)])
    positions = np.array([-20.0, -30.0, 0.0]) + np.asarray(z_mm, float)[:, None] * normal
    files = np.arange(1, len(z_mm) + 1) if numbers is None else np.asarray(numbers)
    return Geometry(files, positions, np.array([1.0, 0, 0]), column, (0.5, 0.4), 1.0, shifts_px)


def boxes(*rows) -> pd.DataFrame:
    """Rows of file_number, x, y, width, height[, score[, level]]."""
    filled = [(*row, *(0.5, "")[len(row) - 5 :]) for row in rows]
    return pd.DataFrame(filled, columns=COLUMNS)


def test_gaps_are_bridged_by_mm_not_by_slices():
    near = boxes((1, 10, 10, 8, 8), (9, 10, 10, 8, 8))
    fine, coarse = geometry(100 - 0.5 * np.arange(9)), geometry(100 - 1.0 * np.arange(9))
    assert link_boxes(near, fine).tolist() == [0, 0]
    assert link_boxes(near, coarse).tolist() == [0, 1]
    assert link_boxes(near, coarse, Linking(gap_mm=8)).tolist() == [0, 0]


def test_two_fractures_of_a_slice_stay_two_and_a_chain_is_one():
    rows = [(n, 10 + n, 10, 8, 8) for n in range(1, 9)] + [(n, 60, 10, 8, 8) for n in range(1, 9)]
    lesions = link_boxes(boxes(*rows), geometry(100 - 1.0 * np.arange(9)))
    assert set(lesions[:8]) == {lesions[0]}
    assert set(lesions[8:]) == {lesions[8]}
    assert lesions[0] != lesions[8]


def test_places_are_lps_mm_to_the_outer_faces():
    place = geometry([10.0, 9.0, 7.0, 6.0])
    found = find_lesions("a", boxes((2, 5, 6, 10, 4, 0.9), (3, 5, 6, 10, 4, 0.3)), place)
    assert list(found.columns) == list(LESION_COLUMNS)
    row = found.iloc[0]
    # Pixels 5..14 at 0.4 mm from x = -20, 6..9 at 0.5 mm from y = -30; slices at 9 and 7, neighbours 1 mm away.
    assert row[list(LEAST)].tolist() == pytest.approx([-20 + 4.5 * 0.4, -30 + 5.5 * 0.5, 6.5])
    assert row[list(GREATEST)].tolist() == pytest.approx([-20 + 14.5 * 0.4, -30 + 9.5 * 0.5, 9.5])
    assert row[list(CENTRE)].tolist() == pytest.approx([-20 + 9.5 * 0.4, -30 + 7.5 * 0.5, 9 * 0.75 + 7 * 0.25])
    assert (row["score"], row["slices"], row["level"]) == (0.9, 2, "")


def test_a_tilted_stack_and_straightened_slices_give_true_places():
    tilted = geometry([10.0, 9.0, 8.0], tilt_deg=30)
    row = find_lesions("a", boxes((2, 5, 6, 10, 4)), tilted).iloc[0]
    assert row[list(CENTRE)].tolist() == pytest.approx(tilted.voxel_to_lps(1, 7.5, 9.5).tolist())
    assert row["z_max_mm"] - row["z_min_mm"] == pytest.approx(4 * 0.5 * 0.5 + np.cos(np.pi / 6))
    moved = geometry([10.0, 9.0, 8.0], shifts_px=np.array([[0, 0], [3.0, -2.0], [6.0, -4.0]]))
    straight = find_lesions("a", boxes((2, 5 - 2, 6 + 3, 10, 4)), geometry([10.0, 9.0, 8.0]))
    assert find_lesions("a", boxes((2, 5, 6, 10, 4)), moved).equals(straight)


def test_levels_by_slices_by_map_and_by_vote():
    place, rows = geometry(100 - 2.0 * np.arange(4)), [(1, 10, 10, 6, 6), (2, 10, 10, 6, 6), (4, 10, 10, 6, 6)]
    presence = np.zeros((4, 7))
    presence[[0, 1], 2] = 0.9
    presence[1, 3] = 0.95
    assert levels_by_presence(boxes(*rows), place, presence).tolist() == [2, 3, -1]
    probabilities = np.zeros((7, 4, 8, 8))
    probabilities[2, :2, :4] = 0.9  # the upper half of the first two planes is C3, the lower C5
    probabilities[4, :2, 4:] = 0.9
    found, crop = level_map(probabilities, place.z_mm, 32.0), Crop(0, 0, 32, 32, 64)
    inside = boxes((1, 10, 2, 6, 6), (2, 10, 20, 6, 9))
    assert levels_by_map(inside, place, found, crop).tolist() == [2, 4]
    # A box beside every level has the nearest within 25 mm: here the one on the last of four planes.
    probabilities = np.zeros((7, 4, 8, 8))
    probabilities[5, 3] = 0.9
    for step_mm, expected in ((7.0, 5), (9.0, -1)):
        apart = geometry(100 - step_mm * np.arange(4))
        found = level_map(probabilities, apart.z_mm, 32.0)
        assert levels_by_map(boxes((1, 10, 2, 6, 6)), apart, found, crop).tolist() == [expected]
    voted = find_lesions("a", boxes(*[(*row, 0.5) for row in rows]), place, np.array([2, 3, 3]), Linking(gap_mm=9))
    assert voted["level"].tolist() == ["C4"]
    told = find_lesions("a", boxes((1, 9, 9, 5, 5, 0.9, "C7"), (2, 9, 9, 5, 5, 0.2, "C6")), place)
    assert told["level"].tolist() == ["C7"]


def test_no_boxes_give_an_empty_table_and_a_foreign_slice_an_error():
    assert find_lesions("a", boxes(), geometry([3.0, 2.0, 1.0])).columns.tolist() == list(LESION_COLUMNS)
    with pytest.raises(ValueError, match="lacks: \\[9\\]"):
        link_boxes(boxes((9, 1, 1, 2, 2)), geometry([3.0, 2.0, 1.0]))


@st.composite
def stacks(draw):
    steps = draw(st.lists(st.sampled_from([0.5, 1.0, 2.5, 6.0]), min_size=3, max_size=12))
    place = geometry(50 - np.cumsum(steps))
    row = st.tuples(
        st.integers(1, len(steps)), st.integers(0, 40), st.integers(0, 40), st.integers(2, 20), st.integers(2, 20)
    )
    rows = draw(st.lists(st.tuples(row, st.integers(1, 99)), min_size=1, max_size=12, unique_by=lambda pair: pair[1]))
    return place, boxes(*[(*row, score / 100) for row, score in rows])


@given(stacks(), st.randoms(use_true_random=False))
def test_neither_the_order_of_rows_nor_that_of_files_matters(made, random):
    place, found = made
    order = list(range(len(found)))
    random.shuffle(order)
    assert np.array_equal(link_boxes(found.iloc[order], place), link_boxes(found, place)[order])
    flipped = replace(place, file_numbers=place.file_numbers[::-1])
    renumbered = found.assign(file_number=len(place.file_numbers) + 1 - found["file_number"])
    assert find_lesions("a", renumbered, flipped).equals(find_lesions("a", found, place))


@given(stacks())
def test_every_box_is_in_one_lesion_which_holds_it(made):
    place, found = made
    lesions, table = link_boxes(found, place), find_lesions("a", found, place)
    assert sorted(set(lesions)) == list(range(len(table)))
    assert table["score"].is_monotonic_decreasing
    for lesion, row in zip(lesions, found.itertuples(), strict=True):
        z = int(row.file_number) - 1
        corners = place.voxel_to_lps(z, [row.y - 0.5, row.y + row.height - 0.5], [row.x - 0.5, row.x + row.width - 0.5])
        mine = table.iloc[lesion]
        assert (corners >= mine[list(LEAST)].to_numpy(float) - 1e-9).all()
        assert (corners <= mine[list(GREATEST)].to_numpy(float) + 1e-9).all()
        assert (mine[list(CENTRE)].to_numpy(float) >= mine[list(LEAST)].to_numpy(float)).all()


@given(stacks(), st.floats(-300, 300), st.integers(-9, 9))
def test_moving_the_patient_moves_the_lesions(made, away_mm, pixels):
    place, found = made
    moved = replace(place, positions_mm=place.positions_mm + np.array([0, 0, away_mm]))
    there = find_lesions("a", found.assign(x=found["x"] + pixels), moved)
    here, shift = find_lesions("a", found, place), [pixels * 0.4, 0, away_mm]
    for ends in (CENTRE, LEAST, GREATEST):
        assert np.allclose(there[list(ends)], here[list(ends)] + shift)
    assert there[["lesion", "slices", "score"]].equals(here[["lesion", "slices", "score"]])


@given(stacks())
def test_slices_without_boxes_between_the_others_change_no_link(made):
    """The same scan cut twice as finely has the same lesions."""
    place, found = made
    z_mm = place.z_mm
    finer = geometry(np.sort(np.concatenate([z_mm, (z_mm[1:] + z_mm[:-1]) / 2]))[::-1])
    again = found.assign(file_number=2 * found["file_number"] - 1)
    assert np.array_equal(link_boxes(again, finer), link_boxes(found, place))


def test_a_table_of_boxes_is_verified(tmp_path):
    file = tmp_path / "boxes.csv"
    table = boxes((1, 2, 3, 4, 5, 0.5, "C2"), (2, 2, 3, 4, 5, 0.5))
    table.insert(0, STUDY, "007")
    table.to_csv(file, index=False)
    assert read_found_boxes(file).equals(table)
    for column, value in (("width", 0), ("score", 1.5), ("level", "T1"), ("x", np.nan)):
        table.assign(**{column: value}).to_csv(file, index=False)
        with pytest.raises(UserError, match="study 007, file_number 1"):
            read_found_boxes(file)
    assert set(table["level"]) <= {"", *LEVELS}
