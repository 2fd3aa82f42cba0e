from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cspine.data.boxes import StudyBoxes, boxes_in_cache, bridge_gaps, place_boxes
from cspine.data.geometry import Geometry
from cspine.data.preprocess import Crop

SHAPE = (40, 60)  # rows, columns: not square, so that an exchange of the axes shows


def stack(numbers, spacing_mm: float = 2.0) -> Geometry:
    positions = np.array([[0.0, 0.0, 100 - spacing_mm * z] for z in range(len(numbers))])
    return Geometry(np.array(numbers), positions, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), (0.5, 0.5), 3.0)


def table(*rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["x", "y", "width", "height", "slice_number"])


@pytest.mark.parametrize("numbers", [range(2, 12), range(11, 1, -1)], ids=["descending", "ascending"])
def test_boxes_are_found_by_file_number_not_by_place(numbers):
    placed = place_boxes(table((5, 6, 7, 8, 4), (9, 9, 2, 2, 10)), stack(list(numbers)), SHAPE)
    assert [list(numbers)[z] for z in np.flatnonzero(placed.present)] == sorted([4, 10], key=list(numbers).index)
    assert placed.boxes[list(numbers).index(4)].tolist() == [5, 6, 7, 8]
    assert placed.boxes[list(numbers).index(10)].tolist() == [9, 9, 2, 2]


def test_what_the_study_or_the_image_lacks_is_dropped_and_counted():
    rows = table(
        (1, 1, 2, 2, 99), (1, 1, 2, 2, 0), (60, 1, 5, 5, 1), (1, 1, 0, 5, 2), (1, -9, 5, 5, 3), (np.nan, 1, 1, 1, 1)
    )
    placed = place_boxes(rows, stack([1, 2, 3]), SHAPE)
    assert not placed.present.any()
    assert (placed.unknown, placed.outside) == (2, 4)


def test_boxes_are_clipped_to_columns_and_rows():
    placed = place_boxes(table((-3, 35, 10, 10, 1), (55, -2, 10, 10, 2)), stack([1, 2]), SHAPE)
    assert placed.boxes.tolist() == [[0, 35, 7, 5], [55, 0, 5, 8]]


def test_two_boxes_on_a_slice_become_the_one_about_both():
    placed = place_boxes(table((10, 10, 5, 5, 1), (20, 5, 5, 5, 1)), stack([1, 2]), SHAPE)
    assert placed.boxes[0].tolist() == [10, 5, 15, 10]


def test_gaps_are_bridged_in_mm_up_to_the_limit():
    boxes = np.full((8, 4), np.nan)
    boxes[[0, 3, 7]] = [[0, 0, 10, 10], [30, 6, 4, 16], [0, 0, 1, 1]]
    z_mm = np.array([100.0, 99, 94, 91, 90, 89, 88, 81])
    bridged = bridge_gaps(StudyBoxes(boxes), z_mm, 9.0)
    assert np.flatnonzero(bridged.present).tolist() == [0, 1, 2, 3, 7]
    assert np.allclose(bridged.boxes[1], boxes[0] + (boxes[3] - boxes[0]) / 9)
    assert np.allclose(bridged.boxes[2], boxes[0] + (boxes[3] - boxes[0]) * 6 / 9)
    assert bridge_gaps(StudyBoxes(boxes), z_mm, 10.0).present.all()
    assert bridge_gaps(StudyBoxes(boxes), z_mm, 0.0).present.sum() == 3
    assert np.isnan(boxes[1]).all(), "the input is left alone"


coordinates = st.floats(-50, 90, allow_nan=False)
sizes = st.floats(0.5, 80, allow_nan=False)
crops = st.builds(
    Crop, st.integers(-20, 30), st.integers(-20, 30), st.integers(8, 60), st.integers(8, 60), st.integers(16, 96)
)


@given(st.lists(st.tuples(coordinates, coordinates, sizes, sizes, st.integers(0, 12)), max_size=20))
def test_every_row_is_placed_or_counted_and_no_box_leaves_the_image(rows):
    placed = place_boxes(table(*rows), stack(range(1, 11)), SHAPE)
    lost = placed.unknown + placed.outside
    assert placed.present.sum() <= len(rows) - lost
    assert (len(rows) > lost) == placed.present.any()
    x, y, width, height = placed.boxes[placed.present].T
    assert (x >= 0).all() and (y >= 0).all() and (width > 0).all() and (height > 0).all()  # noqa: PT018
    assert (x + width <= 60 + 1e-9).all()
    assert (y + height <= 40 + 1e-9).all()


@given(crops, st.floats(0, 1), st.floats(0, 1), st.floats(0.05, 1), st.floats(0.05, 1))
def test_a_box_inside_the_crop_comes_back_and_keeps_its_share(crop, u, v, w, h):
    width, height = w * crop.width, h * crop.height
    box = np.array([[crop.left + u * (crop.width - width), crop.top + v * (crop.height - height), width, height]])
    x, y, cached_width, cached_height = boxes_in_cache(box, crop)[0]
    assert np.isclose(cached_width / crop.size_px, w)
    assert np.isclose(cached_height / crop.size_px, h)
    top, left = crop.to_original(y - 0.5, x - 0.5)
    assert np.allclose([left + 0.5, top + 0.5], box[0, :2], atol=1e-9 + 1e-6 * crop.width)


def test_the_box_of_the_whole_crop_is_the_whole_cached_square():
    crop = Crop(top=-5, left=7, height=20, width=40, size_px=64)
    assert boxes_in_cache(np.array([[7, -5, 40, 20]]), crop).tolist() == [[0, 0, 64, 64]]
    assert boxes_in_cache(np.array([[17, 5, 10, 5]]), crop).tolist() == [[16, 32, 16, 16]]


@given(crops, coordinates, coordinates, sizes, sizes)
def test_boxes_in_the_cache_stay_inside_and_absent_ones_stay_absent(crop, x, y, width, height):
    found = boxes_in_cache(np.array([[x, y, width, height], [np.nan] * 4]), crop)
    assert np.isnan(found[1]).all()
    overlap_x = min(x + width, crop.left + crop.width) - max(x, crop.left)
    overlap_y = min(y + height, crop.top + crop.height) - max(y, crop.top)
    overlap = min(overlap_x, overlap_y)
    assume(abs(overlap) > 1e-6)
    if overlap < 0:
        assert np.isnan(found[0]).all()
    else:
        left, top, w, h = found[0]
        assert left >= 0
        assert top >= 0
        assert max(left + w, top + h) <= crop.size_px * (1 + 1e-12)
        assert np.isclose(w, overlap_x * crop.size_px / crop.width)
        assert np.isclose(h, overlap_y * crop.size_px / crop.height)


def test_boxes_follow_slices_that_were_straightened():
    shifts_px = np.array([[0.0, 0.0], [2.0, -3.0], [4.0, -6.0]])
    geometry = replace(stack([1, 2, 3]), shifts_px=shifts_px)
    placed = place_boxes(table((10, 20, 5, 4, 1), (10, 20, 5, 4, 2), (10, 20, 5, 4, 3)), geometry, SHAPE)
    assert placed.boxes.tolist() == [[10, 20, 5, 4], [7, 22, 5, 4], [4, 24, 5, 4]]
