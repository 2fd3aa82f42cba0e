"""Cells of a level's images: they lie where the crop shows the box, however the crop is moved."""

from dataclasses import replace

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from test_level_crops import FIELD_MM, TOP_MM, config, mapped

from cspine.config import Config
from cspine.data.level_cells import SliceTruth, cell_truth, cells_per_side
from cspine.data.level_crops import LevelPlace, Move, cut_level, find_levels, image_z_mm
from cspine.data.slices import nearest_slices

SIZE_PX, SPACING_MM = 192, 1.0
MOVES = st.builds(
    Move,
    rotate_deg=st.floats(-20, 20),
    scale=st.floats(0.8, 1.2),
    shift_y=st.floats(-0.1, 0.1),
    shift_x=st.floats(-0.1, 0.1),
    mirror=st.booleans(),
    upside_down=st.booleans(),
)


def exact() -> Config:
    return replace(config(), crop=replace(config().crop, box_margin_mm=0.0))


def level() -> LevelPlace:
    place = find_levels(mapped(), 0.5)[2]
    assert place is not None
    return place


def box_on_slices(box_mm: tuple[float, float, float, float], z_mm: np.ndarray) -> SliceTruth:
    """Seen on the cranial half of the level, unknown on one slice, not below."""
    seen = np.where(z_mm > 40, 1, np.where(z_mm > 36, -1, 0)).astype(np.int8)
    return SliceTruth(seen, np.where(seen[:, None] == 1, box_mm, np.nan))


@settings(max_examples=30, deadline=None)
@given(MOVES, st.floats(-25, 5), st.floats(-20, 15), st.floats(1, 30), st.floats(1, 30))
def test_cells_lie_where_the_crop_shows_the_box(
    move: Move, left: float, top: float, width: float, height: float
) -> None:
    z_mm = TOP_MM - np.arange(SPACING_MM / 2, TOP_MM, SPACING_MM)
    box_mm = (left, top, left + width, top + height)
    place_mm = ((np.arange(SIZE_PX) + 0.5) / SIZE_PX - 0.5) * FIELD_MM
    inside = ((place_mm >= top) & (place_mm <= box_mm[3]))[:, None] & (place_mm >= left) & (place_mm <= box_mm[2])
    volume = np.broadcast_to(np.where(inside, 255, 0).astype(np.uint8), (len(z_mm), 1, SIZE_PX, SIZE_PX)).copy()
    place, settings_ = level(), exact()
    indices = nearest_slices(z_mm, image_z_mm(place, settings_, move))
    cells = cell_truth(box_on_slices(box_mm, z_mm), indices, place, settings_, move)
    assert cells.shape == (6, 6, 6)
    shown = cut_level(volume, z_mm, place, settings_, move)[:, 0]
    for image, cell, z in zip(shown, cells, z_mm[indices], strict=True):
        if z <= 36:
            assert (cell == 0).all()
        elif z <= 40:
            assert (cell == -1).all()
        else:
            share = cv2.resize(image.astype(np.float32), (6, 6), interpolation=cv2.INTER_AREA) / 255
            assert (cell[share > 0.95] == 1).all()
            assert (share[cell == 0] < 0.02).all()


def test_a_box_smaller_than_a_cell_still_counts() -> None:
    z_mm = TOP_MM - np.arange(SPACING_MM / 2, TOP_MM, SPACING_MM)
    truth = box_on_slices((11.0, -9.0, 11.5, -8.5), z_mm)
    place = level()
    indices = nearest_slices(z_mm, image_z_mm(place, config()))
    cells = cell_truth(truth, indices, place, exact(), None)
    assert 1 <= (cells[0] == 1).sum() <= 4
    assert (cells[0] == 0).sum() > 15


def test_of_a_loose_box_its_middle_is_known_to_show_the_fracture() -> None:
    z_mm = TOP_MM - np.arange(SPACING_MM / 2, TOP_MM, SPACING_MM)
    place, truth = level(), box_on_slices((0.0, -20.0, 24.0, 4.0), z_mm)
    indices = nearest_slices(z_mm, image_z_mm(place, config()))
    whole, core = (
        cell_truth(truth, indices, place, replace(config(), crop=replace(config().crop, box_margin_mm=margin)), None)[0]
        for margin in (0.0, 40.0)
    )
    assert (whole == 1).sum() == 16
    assert (core == 1).sum() == 4
    assert np.array_equal(core == 0, whole == 0)
    assert (core[whole == 1] != 0).all()
    # The middle of this box is that of the level, and of the image.
    assert (core[2:4, 2:4] == 1).all()


def test_the_last_cell_may_reach_beyond_the_image() -> None:
    assert [cells_per_side(size) for size in (48, 49, 96)] == [6, 7, 12]
    place, wide = level(), replace(config(), data=replace(config().data, image_size_px=50))
    truth = SliceTruth(np.zeros(2, np.int8), np.full((2, 4), np.nan))
    assert cell_truth(truth, np.array([0, 1]), place, wide, None).shape == (2, 7, 7)
