from dataclasses import replace

import numpy as np
import pytest
from test_geometry import make_geometry

from cspine.config import Preprocess
from cspine.data.preprocess import clean_slice, cut, plan_study, preprocess


def phantom(shape=(6, 128, 128), centre=(60, 70), radius=30) -> np.ndarray:
    """A disc of soft tissue on a table, int16 HU."""
    volume = np.full(shape, -1000, np.int16)
    y, x = np.ogrid[: shape[1], : shape[2]]
    volume[:, (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2] = 40
    volume[:, centre[0] + radius - 1 : centre[0] + radius + 2, 5 : shape[2] - 5] = 100
    return volume


def geometry(slices=6, spacing=(1.0, 1.0)):
    made = make_geometry(z_mm=tuple(-3.0 * index for index in range(slices)))
    return type(made)(**{**vars(made), "pixel_spacing_mm": spacing})


def test_window_maps_its_ends_to_0_and_255():
    volume = np.full((3, 40, 40), -600, np.int16)
    volume[0], volume[1], volume[2] = -2000, 400, 3000
    result = preprocess(volume, geometry(3), Preprocess(field_mm=20, size_px=16))
    assert result.dtype == np.uint8
    assert [set(plane.ravel()) for plane in result] == [{0}, {128}, {255}]


@pytest.mark.parametrize("size_px", [32, 128])
def test_field_is_isotropic_and_padded_with_air(size_px):
    # Pixels twice as high as wide: the ellipse in pixels is a disc in mm.
    volume = np.full((3, 64, 128), -1000, np.int16)
    y, x = np.ogrid[:64, :128]
    volume[:, ((y - 20) * 2.0) ** 2 + (x - 30) ** 2 < 20**2] = 1400
    config = Preprocess(field_mm=80, size_px=size_px)
    result = preprocess(volume, geometry(3, (2.0, 1.0)), config)
    assert result.shape == (3, 1, size_px, size_px)
    inside = result[1, 0] > 127
    height, width = inside.any(axis=1).sum(), inside.any(axis=0).sum()
    assert abs(height - width) <= 0.06 * size_px
    assert width == pytest.approx(40 / 80 * size_px, rel=0.1)
    # The field reaches 10 mm beyond the left border.
    assert (result[:, :, :, 0] == 0).all()


def test_whole_slice_is_padded_to_a_square():
    volume = np.full((3, 30, 60), 1400, np.int16)
    result = preprocess(volume, geometry(3), Preprocess(field_mm=None, size_px=60))
    assert (result[:, :, 16:44] == 255).all()
    assert (result[:, :, :14] == 0).all()
    assert (result[:, :, 46:] == 0).all()


def test_crop_maps_back_to_the_original_pixel():
    volume = phantom()
    volume[:, 50:54, 80:84] = 1400
    config = Preprocess(field_mm=90, size_px=48)
    plan = plan_study(volume, geometry(), config)
    crop = plan.crop
    weights = (cut(volume, plan, config)[0, 0] > 200).astype(float)
    y, x = (np.average(axis, weights=weights) for axis in np.indices(weights.shape))
    assert crop.to_original(y, x) == (pytest.approx(51.5, abs=1), pytest.approx(81.5, abs=1))
    assert crop.to_cached(*crop.to_original(3.0, 7.0)) == (pytest.approx(3), pytest.approx(7))


def test_each_window_is_a_channel_in_the_order_given():
    volume = np.full((3, 40, 40), 40, np.int16)
    config = Preprocess(field_mm=20, size_px=16, windows=("soft_tissue", "wide", "-10..90", "100..200"))
    result = preprocess(volume, geometry(3), config)
    assert result.shape == (3, 4, 16, 16)
    expected = [round(255 * share) for share in (200 / 400, 640 / 2000, 50 / 100, 0)]
    assert result[1, :, 8, 8].tolist() == expected
    for channel, window in enumerate(config.windows):
        alone = preprocess(volume, geometry(3), replace(config, windows=(window,)))
        assert np.array_equal(result[:, channel], alone[:, 0])


@pytest.mark.parametrize("mask", ["threshold", "kmeans"])
@pytest.mark.parametrize("denoise", ["none", "region_mean"])
def test_background_is_zero_in_every_window_and_the_body_unchanged(mask, denoise):
    volume = phantom()
    volume[:, 55:65, 65:75] = -900  # the airway
    volume[:, 62:63, 30:35] = 2000  # a wire beside the neck
    config = Preprocess(field_mm=None, size_px=128, windows=("-900..-100", "wide"), kmeans_classes=3)
    config = replace(config, denoise=denoise)
    plain = preprocess(volume, geometry(), config)
    masked = preprocess(volume, geometry(), replace(config, mask=mask))
    y, x = np.ogrid[:128, :128]
    distance = np.hypot(y - 60, x - 70)
    assert (masked[:, :, distance > 34] == 0).all()
    assert (plain[:, :, distance > 34] > 0).any(), "the table and the wire were to be removed"
    assert np.array_equal(masked[:, :, distance < 29], plain[:, :, distance < 29])


def test_the_kmeans_mask_finds_its_own_threshold():
    # As if slope and intercept were lost: the body is at -500, far below any fixed threshold.
    volume = phantom() - 540
    result = preprocess(volume, geometry(), Preprocess(field_mm=None, size_px=128, mask="kmeans", kmeans_classes=2))
    assert result[0, 0, 60, 70] == round((40 - 540 + 600) / 2000 * 255)
    assert (result[:, :, 70:, :10] == 0).all()


def test_a_volume_of_one_value_has_no_background():
    volume = np.full((3, 40, 40), 400, np.int16)
    config = Preprocess(field_mm=20, size_px=16, mask="kmeans", denoise="region_mean")
    assert (preprocess(volume, geometry(3), config) == 128).all()


def test_steps_that_are_off_leave_the_slice_as_it_is():
    volume = phantom()
    config = Preprocess()
    assert np.array_equal(clean_slice(volume[0], plan_study(volume, geometry(), config), config), volume[0])
