"""Whatever is cut, resampled or moved, a place in the patient stays where it is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cspine.data.geometry import Geometry
from cspine.data.preprocess import Crop
from cspine.level_maps import level_map
from cspine.report.frame import LEAST_MM, MOST_VOXELS, report_frame


def geometry(slices: int, step_mm: float = 2.0, tilt_deg: float = 0.0, spacing=(1.0, 0.8)) -> Geometry:
    angle = np.deg2rad(tilt_deg)
    column, normal = np.array([0.0, np.cos(angle), np.sin(angle)]), np.array([0.0, -np.sin(angle), np.cos(angle)])
    positions = np.array([-30.0, -40.0, 90.0]) - step_mm * np.arange(slices)[:, None] * normal
    return Geometry(np.arange(1, slices + 1), positions, np.array([1.0, 0, 0]), column, spacing, None)


@settings(max_examples=10, deadline=None)
@given(st.floats(-25, 25), st.tuples(*[st.floats(0.2, 0.8)] * 3))
def test_a_blob_stays_at_its_place_in_the_patient(tilt_deg, shares):
    place = geometry(40, tilt_deg=tilt_deg)
    shape = np.array([40, 70, 90])
    centre = np.array(shares) * (shape - 1)
    away = (np.indices(shape) - centre[:, None, None, None]) * np.array([2.0, 1.0, 0.8])[:, None, None, None]
    volume = (1000 * np.exp(-(away**2).sum(axis=0) / 50)).astype(np.int16)
    frame = report_frame(place, (70, 90), (34.5, 44.5), 200.0)
    sampled = frame.sample(volume).astype(float)
    found = [(np.indices(frame.shape)[axis] * sampled).sum() / sampled.sum() for axis in range(3)]
    lps = place.voxel_to_lps(*centre)
    assert np.abs(frame.to_index(lps) - found).max() < 0.6
    assert np.allclose(frame.affine @ [*frame.to_index(lps)[::-1], 1], [*lps, 1])
    assert sampled.max() == pytest.approx(volume.max(), rel=0.1)


def test_the_frame_lies_inside_the_slices_and_is_small_enough():
    frame = report_frame(geometry(1000, 0.5, spacing=(0.3, 0.3)), (768, 768), (20.0, 700.0), 180.0)
    assert np.prod(frame.shape) <= MOST_VOXELS * 1.02
    for axis in (0, 1):
        assert 0 <= frame.pixels(axis)[0] < frame.pixels(axis)[-1] <= 767 + 1e-9
    assert frame.plane_z_mm[-1] >= frame.geometry.z_mm[-1] - 1e-9
    assert report_frame(geometry(5, 0.1, spacing=(0.1, 0.1)), (64, 64), (32, 32), 60.0).voxel_mm == LEAST_MM


def test_uneven_slices_are_put_where_they_are():
    place = Geometry(np.arange(3), np.array([[0, 0, 10.0], [0, 0, 8.0], [0, 0, 0.0]]), np.array([1.0, 0, 0]),
                     np.array([0, 1.0, 0]), (1.0, 1.0), None)  # fmt: skip
    volume = np.stack([np.full((4, 4), value, np.int16) for value in (100, 80, 0)])
    # Linear from 80 at 8 mm to 0 at 0 mm: 10 HU a mm.
    frame = report_frame(place, (4, 4), (1.5, 1.5), 4.0)
    sampled = frame.sample(volume)
    at = frame.to_index(np.array([1.0, 1.0, 4.0]))[0]
    assert sampled[round(float(at)), 1, 1] == pytest.approx(40, abs=6)


def test_maps_are_zero_beyond_themselves_and_lie_on_the_cached_square():
    place = geometry(30, 2.0, spacing=(1.0, 1.0))
    crop = Crop(10, 20, 40, 40, 80)  # original rows 10..49, columns 20..59
    probabilities = np.zeros((7, 10, 10, 10))
    probabilities[3, 2:4, 5:7, 1:3] = 1  # rows 30..37, columns 24..31
    planes_mm = place.z_mm[0] - 10 - 4.0 * np.arange(10)
    frame = report_frame(place, (70, 90), (34.5, 44.5), 200.0)
    level, probability = frame.sample_map(level_map(probabilities, planes_mm, 40.0), crop)
    assert level.shape == probability.shape == frame.shape
    assert set(np.unique(level)) == {0, 4}
    assert probability.max() == pytest.approx(1, abs=0.01)
    z, y, x = np.nonzero(probability > 0.5)
    assert frame.pixels(0)[[y.min(), y.max()]] == pytest.approx([29.5, 37.5], abs=0.8)
    assert frame.pixels(1)[[x.min(), x.max()]] == pytest.approx([23.5, 31.5], abs=0.8)
    middle_mm = (planes_mm[2] + planes_mm[3]) / 2
    assert frame.plane_z_mm[[z.min(), z.max()]].mean() == pytest.approx(middle_mm, abs=1)
    everywhere = frame.sample_map(level_map(np.ones((7, 10, 10, 10)), planes_mm, 40.0), crop)[1]
    inside = (frame.plane_z_mm <= planes_mm[0] + 2) & (frame.plane_z_mm >= planes_mm[-1] - 2)
    assert np.array_equal(everywhere.max(axis=(1, 2)) > 0, inside)


def test_of_two_levels_the_likelier_wins():
    place, crop = geometry(30, 2.0, spacing=(1.0, 1.0)), Crop(10, 20, 40, 40, 80)
    probabilities = np.zeros((7, 10, 10, 10))
    probabilities[1], probabilities[5, :5] = 0.4, 0.6
    frame = report_frame(place, (70, 90), (29.5, 39.5), 20.0)
    level, probability = frame.sample_map(level_map(probabilities, place.z_mm[0] - 4.0 * np.arange(10), 40.0), crop)
    assert level[frame.plane_z_mm > place.z_mm[0] - 15].min() == 6
    lower = (frame.plane_z_mm < place.z_mm[0] - 21) & (frame.plane_z_mm > place.z_mm[0] - 37)
    assert set(np.unique(level[lower])) == {2}
    assert probability[lower].max() == pytest.approx(0.4, abs=0.01)
