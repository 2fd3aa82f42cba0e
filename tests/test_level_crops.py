"""Level crops in mm: they show the level's middle and mask, however the study was sampled, and move as asked."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cspine.config import Augment, Config, Crop, Data, Preprocess
from cspine.data.level_crops import LevelPlace, Move, cut_level, draw_move, find_levels, image_z_mm, worn_place
from cspine.data.slices import nearest_slices
from cspine.errors import UserError
from cspine.level_maps import LevelMap, level_map

FIELD_MM, TOP_MM = 96.0, 60.0
# A box as level 3, in mm: z from 30 to 48, y from -20 to 4, x from -4 to 28 about the field's middle.
BOX = ((30.0, 48.0), (-20.0, 4.0), (-4.0, 28.0))
CENTRE = (-8.0, 12.0)


def config(**data: object) -> Config:
    settings = Data(image_size_px=48, neighbours=0, **data)  # type: ignore[arg-type]
    crop = Crop(slices=6, margin_mm=3.0, side_mm=48.0)
    return Config(name="c", task="t", preprocess=Preprocess(field_mm=FIELD_MM), data=settings, crop=crop)


def mapped(voxel_mm: float = 2.0) -> LevelMap:
    side = round(FIELD_MM / voxel_mm)
    planes_mm = TOP_MM - voxel_mm / 2 - np.arange(round(TOP_MM / voxel_mm)) * voxel_mm
    place = (np.arange(side) + 0.5) * voxel_mm - FIELD_MM / 2
    inside = [(grid > low) & (grid < high) for grid, (low, high) in zip((planes_mm, place, place), BOX, strict=True)]
    values = np.zeros((7, len(planes_mm), side, side))
    values[2] = inside[0][:, None, None] & inside[1][:, None] & inside[2]
    return level_map(values, planes_mm, FIELD_MM)


def scene(size_px: int, spacing_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """A volume (z, 2 windows, y, x) of smooth grey: one window rises with x and z, the other with y."""
    z_mm = TOP_MM - np.arange(spacing_mm / 2, TOP_MM, spacing_mm)
    place = ((np.arange(size_px) + 0.5) / size_px - 0.5) * FIELD_MM
    z, y, x = np.meshgrid(z_mm, place, place, indexing="ij")
    return np.stack([100 + x + z, 120 + 2 * y], axis=1).astype(np.uint8), z_mm


def test_the_place_of_a_level_is_that_of_its_box() -> None:
    found = find_levels(mapped(), 0.5)
    assert [place is not None for place in found] == [False, False, True, False, False, False, False]
    place = found[2]
    assert place is not None
    assert place.centre_mm == pytest.approx(CENTRE)
    assert (place.top_mm, place.bottom_mm) == pytest.approx((48, 30))
    assert place.volume_mm3 == pytest.approx(18 * 24 * 32)


def test_a_stray_piece_does_not_move_the_place() -> None:
    stray = mapped()
    stray.probabilities[2, -3:, -3:, :3] = 255
    place, clean = find_levels(stray, 0.5)[2], find_levels(mapped(), 0.5)[2]
    assert place is not None
    assert clean is not None
    assert place.centre_mm == clean.centre_mm
    assert place.volume_mm3 == clean.volume_mm3


def test_images_are_evenly_spaced_over_the_level_and_its_margin() -> None:
    place = find_levels(mapped(), 0.5)[2]
    assert place is not None
    assert image_z_mm(place, config()) == pytest.approx([49, 45, 41, 37, 33, 29])
    assert image_z_mm(place, config(), Move(shift_z=0.5)) == pytest.approx([47, 43, 39, 35, 31, 27])


@settings(max_examples=25, deadline=None)
@given(size_px=st.integers(80, 300), spacing_mm=st.floats(0.4, 2.0), voxel_mm=st.sampled_from([2.0, 4.0]))
def test_the_crop_shows_the_same_mm_however_it_was_sampled(size_px: int, spacing_mm: float, voxel_mm: float) -> None:
    place = find_levels(mapped(voxel_mm), 0.5)[2]
    assert place is not None
    cut = cut_level(*scene(size_px, spacing_mm), place, config()).astype(float)
    assert cut.shape == (6, 3, 48, 48)
    # One mm a pixel: the first is 23.5 mm from the middle.
    offsets = np.arange(48) - 23.5
    z = image_z_mm(place, config())[:, None, None]
    assert np.abs(cut[:, 0] - (100 + CENTRE[1] + offsets + z)).max() <= 2.5 + spacing_mm / 2
    assert np.abs(cut[:, 1] - (120 + 2 * (CENTRE[0] + offsets)[:, None])).max() <= 3.5


def test_where_pixels_fall_on_pixels_the_crop_is_a_copy() -> None:
    """Half a pixel beside, the interpolation would mix neighbours."""
    place = find_levels(mapped(), 0.5)[2]
    assert place is not None
    volume, z_mm = scene(96, 1.0)
    volume[:] = np.random.default_rng(0).integers(0, 256, volume.shape)
    cut = cut_level(volume, z_mm, place, config())
    # One mm a pixel in both; the field's middle lies between pixels 47 and 48.
    rows, columns = (slice(round(48 + middle) - 24, round(48 + middle) + 24) for middle in CENTRE)
    slices = nearest_slices(z_mm, image_z_mm(place, config()))
    assert np.array_equal(cut[:, :2], volume[slices, :, rows, columns])


def test_the_mask_lies_on_the_level_and_fades_out_beyond_it() -> None:
    place = find_levels(mapped(), 0.5)[2]
    assert place is not None
    mask = cut_level(*scene(96, 1.0), place, config())[:, -1] > 127
    rows, columns = np.flatnonzero(mask[2].any(axis=1)), np.flatnonzero(mask[2].any(axis=0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == pytest.approx((12, 35, 8, 39), abs=1)
    # The first and the last image lie in the margin.
    assert mask.any(axis=(1, 2)).tolist() == [False, True, True, True, True, False]


def test_neighbours_are_channels_at_their_distance() -> None:
    place = find_levels(mapped(), 0.5)[2]
    assert place is not None
    volume, z_mm = scene(96, 0.5)
    wide = replace(config(), data=replace(config().data, neighbours=1, neighbour_step_mm=4.0))
    cut = cut_level(volume, z_mm, place, wide).astype(int)
    assert cut.shape == (6, 7, 48, 48)
    assert np.abs(cut[:, 0] - cut[:, 2] - 4).max() <= 1  # cranial above middle, first window
    assert np.abs(cut[:, 2] - cut[:, 4] - 4).max() <= 1
    assert np.array_equal(cut[:, 1], cut[:, 3])


def test_moves_take_image_and_mask_along() -> None:
    place = find_levels(mapped(), 0.5)[2]
    assert place is not None
    volume, z_mm = scene(96, 1.0)
    plain = cut_level(volume, z_mm, place, config()).astype(int)
    assert np.abs(cut_level(volume, z_mm, place, config(), Move(mirror=True))[..., ::-1] - plain).max() <= 1
    assert np.abs(cut_level(volume, z_mm, place, config(), Move(upside_down=True))[:, :, ::-1] - plain).max() <= 1
    turned = cut_level(volume, z_mm, place, config(), Move(rotate_deg=90))
    assert np.abs(np.rot90(turned, -1, (2, 3)) - plain).max() <= 1
    shifted = cut_level(volume, z_mm, place, config(), Move(shift_x=0.125, shift_y=-0.25)).astype(int)
    assert np.abs(shifted[:, :, 12:, :-6] - plain[:, :, :-12, 6:]).max() <= 1
    zoomed = cut_level(volume, z_mm, place, config(), Move(scale=1.5))[2, -1] > 127
    assert zoomed.sum() == pytest.approx((plain[2, -1] > 127).sum() / 1.5**2, rel=0.1)


def test_what_lies_beyond_the_field_is_empty() -> None:
    place = find_levels(mapped(), 0.5)[2]
    assert place is not None
    cut = cut_level(*scene(96, 1.0), replace(place, centre_mm=(0.0, 40.0)), config())
    assert (cut[:, 0, :, :31] > 0).all()
    assert (cut[:, :, :, 33:] == 0).all()


def test_moves_follow_from_the_seed_and_stay_within_the_config() -> None:
    augment = Augment(rotate_deg=20, shift_x=0.1, shift_y=0.2, scale=0.3, horizontal_flip=0.5)
    drawn = [draw_move(augment, seed) for seed in range(200)]
    assert drawn[:5] == [draw_move(augment, seed) for seed in range(5)]
    assert 15 < max(move.rotate_deg for move in drawn) <= 20
    assert 0.08 < max(abs(move.shift_x) for move in drawn) <= 0.1 < max(abs(move.shift_y) for move in drawn) <= 0.2
    assert 0.72 > min(move.scale for move in drawn) >= 0.7
    assert 0.4 < max(abs(move.shift_z) for move in drawn) <= 0.5
    assert 70 < sum(move.mirror for move in drawn) < 130
    assert not any(move.upside_down for move in drawn)


def test_a_field_of_unknown_size_is_refused() -> None:
    place = find_levels(mapped(), 0.5)[2]
    assert place is not None
    whole = replace(config(), preprocess=Preprocess(field_mm=None))
    with pytest.raises(UserError, match=r"set preprocess\.field_mm"):
        cut_level(*scene(96, 1.0), place, whole)


def test_a_worn_mask_is_another_about_the_same_place() -> None:
    probabilities = np.zeros((9, 12, 12), np.uint8)
    probabilities[2:7, 3:9, 3:9] = 255
    place = LevelPlace(probabilities, 30.0 - 2 * np.arange(9), (-24.0, -24.0), 4.0, (0.0, 0.0), 27.0, 17.0, 2880.0)
    shares, away = [], []
    for seed in range(60):
        worn = worn_place(place, np.random.default_rng(seed))
        assert (worn.centre_mm, worn.top_mm, worn.bottom_mm) == (place.centre_mm, place.top_mm, place.bottom_mm)
        shares.append((worn.probabilities > 127).sum() / (probabilities > 127).sum())
        away.append([worn.plane_z_mm[0] - 30, worn.corner_mm[0] + 24, worn.corner_mm[1] + 24])
    # Some masks stay nearly whole and of some most is lost.
    assert np.quantile(shares, 0.9) > 0.9
    assert np.quantile(shares, 0.1) < 0.6
    assert 0.5 < np.mean(shares) < 0.9
    assert np.allclose(np.std(away, axis=0), 1.5, atol=0.5)
