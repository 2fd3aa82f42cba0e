from dataclasses import replace

import cv2
import numpy as np
from tiny_reading import reading

from cspine.lesions import CENTRE
from cspine.report.pictures import APART_MM, draw_sagittal, draw_slices, draw_spine, suspicious_planes, write_pictures


def test_three_files_without_surfaces_two(tmp_path):
    files = write_pictures(reading(name="a"), tmp_path, "a")
    assert [file.name for file in files] == ["a-sagittal.png", "a-slices.png", "a-spine.png"]
    for file in files:
        picture = cv2.imread(str(file))
        assert picture is not None
        assert np.std(picture) > 10
    bare = replace(reading(heads=False, lesions=False, name="b"), surfaces=(None,) * 7)
    assert len(write_pictures(bare, tmp_path, "b")) == 2


def test_the_most_suspicious_slices_are_apart_and_those_of_lesions_and_heat():
    made = reading()
    planes = suspicious_planes(made)
    assert planes == sorted(planes)
    assert len(planes) == 5
    assert np.diff(planes).min() * made.frame.voxel_mm >= APART_MM
    lesion = made.frame.to_index(made.lesions[list(CENTRE)].to_numpy(float))[0, 0]
    assert min(abs(z - lesion) for z in planes) <= 0.5
    assert made.heat is not None
    hot = np.flatnonzero(made.heat.max(axis=(1, 2)))
    assert any(z in hot for z in planes)
    bare = suspicious_planes(reading(heads=False, lesions=False))
    assert sorted({int(made.labels[z].max()) for z in bare} - {0}) == [1, 2, 3, 4]


def test_boxes_are_drawn_where_the_plane_meets_the_lesion():
    made = reading()
    figure = draw_slices(made)
    lower = figure.axes[len(figure.axes) // 2 :]
    boxed = [bool(axis.patches) for axis in lower]
    low, high = (
        made.frame.to_index(made.lesions[["x_max_mm", "y_max_mm", "z_max_mm"]].to_numpy(float))[0, 0],
        (made.frame.to_index(made.lesions[["x_min_mm", "y_min_mm", "z_min_mm"]].to_numpy(float))[0, 0]),
    )
    assert boxed == [low <= z <= high for z in suspicious_planes(made)]
    assert sum(boxed) >= 1
    (box,) = next(axis.patches for axis in lower if axis.patches)
    x, y, _ = made.frame.to_index(made.lesions[list(CENTRE)].to_numpy(float))[0][::-1]
    assert box.get_x() < x < box.get_x() + box.get_width()
    assert box.get_y() < y < box.get_y() + box.get_height()
    assert all(not axis.patches for axis in figure.axes[: len(figure.axes) // 2])


def test_names_stand_beside_their_levels_from_the_head_down():
    figure = draw_sagittal(reading())
    texts = [text for text in figure.axes[1].texts if text.get_text()]
    assert [text.get_text().split()[0] for text in texts] == ["C1", "C2", "C3", "C4"]
    assert [text.get_position()[1] for text in texts] == sorted(text.get_position()[1] for text in texts)
    assert ["!" in text.get_text() for text in texts] == [False, True, False, False]


def test_front_and_back_show_left_on_the_other_side():
    front, back = draw_spine(reading()).axes

    def across(axis, letter: str) -> float:
        return next(text.get_position()[0] for text in axis.texts if text.get_text() == letter)

    assert across(front, "L") > across(front, "S")
    assert across(back, "L") < across(back, "S")


def test_the_spine_fills_both_views_wherever_the_scanners_origin_lies():
    made = reading(lesions=False)
    place = made.frame.geometry
    far = replace(place, positions_mm=place.positions_mm + np.array([300.0, 250.0, -900.0]))
    levels = tuple(replace(level, centre_mm=None) for level in made.levels)
    moved = replace(made, frame=replace(made.frame, geometry=far), levels=levels)
    for axis in draw_spine(moved).axes:
        assert np.ptp(axis.get_xlim()) < 100
