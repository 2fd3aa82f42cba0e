import numpy as np
import pytest
from test_geometry import make_geometry

from cspine.config import Preprocess
from cspine.data.preprocess import body_centre, cut, plan_crop, preprocess


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


def test_body_centre_ignores_the_table():
    y, x = body_centre(phantom())
    assert (y, x) == (pytest.approx(60, abs=1.5), pytest.approx(70, abs=1.5))


def test_body_centre_of_nothing_is_the_middle():
    assert body_centre(np.full((3, 20, 30), -1024, np.int16)) == (9.5, 14.5)


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
    assert result.shape == (3, size_px, size_px)
    inside = result[1] > 127
    height, width = inside.any(axis=1).sum(), inside.any(axis=0).sum()
    assert abs(height - width) <= 0.06 * size_px
    assert width == pytest.approx(40 / 80 * size_px, rel=0.1)
    # The field reaches 10 mm beyond the left border.
    assert (result[:, :, 0] == 0).all()


def test_whole_slice_is_padded_to_a_square():
    volume = np.full((3, 30, 60), 1400, np.int16)
    result = preprocess(volume, geometry(3), Preprocess(field_mm=None, size_px=60))
    assert (result[:, 16:44] == 255).all()
    assert (result[:, :14] == 0).all()
    assert (result[:, 46:] == 0).all()


def test_crop_maps_back_to_the_original_pixel():
    volume = phantom()
    volume[:, 50:54, 80:84] = 1400
    config = Preprocess(field_mm=90, size_px=48)
    crop = plan_crop(volume, geometry(), config)
    weights = (cut(volume, crop, config)[0] > 200).astype(float)
    y, x = (np.average(axis, weights=weights) for axis in np.indices(weights.shape))
    assert crop.to_original(y, x) == (pytest.approx(51.5, abs=1), pytest.approx(81.5, abs=1))
    assert crop.to_cached(*crop.to_original(3.0, 7.0)) == (pytest.approx(3), pytest.approx(7))
