"""A leaning stack becomes straight, in voxels and in millimetres alike."""

import numpy as np
import pytest
from conftest import body_hu, slice_dataset, write_study
from hypothesis import given, settings
from hypothesis import strategies as st

from cspine.data.dicom import load_study, scan_study
from cspine.data.geometry import Geometry
from cspine.data.straighten import shift_slice, straightened

SPACING_MM = (1.0, 1.25)  # y, x
SIZE = 48


def tilted_frame(tilt_deg: float, turn_deg: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row and column direction and cranial normal of slices tilted about the left-right axis and turned about z."""
    tilt, turn = np.radians([tilt_deg, turn_deg])
    row = np.array([np.cos(turn), np.sin(turn), 0])
    ahead = np.array([-np.sin(turn), np.cos(turn), 0])
    column = ahead * np.cos(tilt) - np.array([0, 0, np.sin(tilt)])
    return row, column, np.cross(row, column)


def rod_hu(points: np.ndarray, centre: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """HU at LPS points (..., 3) of a straight soft rod along the normal, a smooth bell across."""
    away = points - centre
    distance2 = (away**2).sum(axis=-1) - (away @ normal) ** 2
    return np.rint(1000 * np.exp(-distance2 / (2 * 5.0**2)) - 1000)


def scan_rod(folder, frame, positions, centre):
    """Write the slices that a scanner would see of a rod through `centre`, at positions (n, 3), as DICOM."""
    row, column, normal = frame
    folder.mkdir()
    y, x = np.mgrid[:SIZE, :SIZE]
    for index, position in enumerate(positions):
        points = position + (y * SPACING_MM[0])[..., None] * column + (x * SPACING_MM[1])[..., None] * row
        slice_dataset(
            rod_hu(points, centre, normal).astype(np.int16),
            0,
            index + 1,
            ImagePositionPatient=[f"{value:.9f}" for value in position],
            ImageOrientationPatient=[f"{value:.12f}" for value in (*row, *column)],
            PixelSpacing=list(SPACING_MM),
        ).save_as(folder / f"{index + 1}.dcm")
    return folder


def leaning(tilt_deg, turn_deg=0.0, slices=9, step_mm=3.0):
    """The frame of a stack of tilted slices along the patient's axis, its positions, and a point in its middle."""
    row, column, normal = tilted_frame(tilt_deg, turn_deg)
    positions = np.array([-25.0, -30.0, 80.0]) - np.arange(slices)[:, None] * [0, 0, step_mm]
    middle = positions[slices // 2] + row * SPACING_MM[1] * SIZE / 2 + column * SPACING_MM[0] * SIZE / 2
    return (row, column, normal), positions, middle


@settings(max_examples=12, deadline=None)
@given(tilt_deg=st.floats(5, 30), sign=st.sampled_from([-1, 1]), turn_deg=st.floats(-10, 10))
def test_a_straight_object_is_straight_after_straightening(tmp_path_factory, tilt_deg, sign, turn_deg):
    frame, positions, middle = leaning(sign * tilt_deg, turn_deg)
    study = load_study(scan_rod(tmp_path_factory.mktemp("rod") / "s", frame, positions, middle))
    # The same column of voxels holds the rod on every slice, and its voxels lie where the rod is.
    centroids = []
    for z, pixels in enumerate(study.volume):
        weight = (pixels + 1000.0).clip(0)
        y, x = (np.mgrid[:SIZE, :SIZE] * weight).sum(axis=(1, 2)) / weight.sum()
        centroids.append((y, x))
        along = (study.geometry.voxel_to_lps(z, y, x) - middle) @ frame[2] * frame[2]
        assert np.allclose(study.geometry.voxel_to_lps(z, y, x), middle + along, atol=0.15)
    assert np.ptp(centroids, axis=0).max() < 0.1
    # Everywhere, not at the rod alone, HU are those of the place that the geometry names.
    z, y, x = np.mgrid[: len(study.volume), 10:38, 10:38]
    truth = rod_hu(study.geometry.voxel_to_lps(z, y, x), middle, frame[2])
    assert np.abs(study.volume[:, 10:38, 10:38] - truth).max() < 25


def test_positions_lie_on_the_normal_and_shifts_lead_back_to_file_pixels(tmp_path):
    frame, positions, middle = leaning(20)
    geometry = scan_study(scan_rod(tmp_path / "s", frame, positions, middle)).geometry
    steps = np.diff(geometry.positions_mm, axis=0)
    assert np.allclose(np.cross(steps, geometry.normal), 0, atol=1e-6)
    assert np.allclose(geometry.affine[:3, :3].T @ geometry.normal, [0, 0, -geometry.spacing_mm], atol=1e-6)
    # A point of a file's pixels and the voxel it went to are the same place of the patient.
    z = np.arange(len(positions))
    y, x = geometry.from_file_pixels(z, 12, 30)
    row, column, _ = frame
    truth = positions + 12 * SPACING_MM[0] * column + 30 * SPACING_MM[1] * row
    assert np.allclose(geometry.voxel_to_lps(z, y, x), truth, atol=1e-6)
    assert np.allclose(geometry.to_file_pixels(z, y, x), [np.full(len(z), 12), np.full(len(z), 30)])
    again = Geometry.from_json(geometry.to_json())
    assert np.array_equal(again.shifts_px, geometry.shifts_px)
    assert np.array_equal(again.take([2, 4]).shifts_px, geometry.shifts_px[[2, 4]])


@pytest.mark.parametrize("tilt_deg", [0, 20])
def test_oblique_stacks_that_do_not_lean_keep_their_pixels(tmp_path, tilt_deg):
    frame, positions, middle = leaning(tilt_deg)
    along = positions[0] - np.arange(len(positions))[:, None] * 3.0 * frame[2]
    study = load_study(scan_rod(tmp_path / "s", frame, along, middle))
    assert study.geometry.shifts_px is None
    assert np.allclose(study.geometry.positions_mm, along)
    assert study.geometry.spacing_mm == pytest.approx(3.0)


@pytest.mark.parametrize(("drift", "moved"), [(0.45, False), (0.55, True)])
def test_half_a_pixel_of_drift_is_the_limit(drift, moved):
    positions = np.array([[0, drift * index / 4 * 2.0, -3.0 * index] for index in range(5)])
    geometry = Geometry(np.arange(5), positions, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), (2.0, 1.0), None)
    assert (straightened(geometry).shifts_px is not None) == moved


def test_a_shift_is_exact_and_air_comes_in():
    ramp = np.tile(np.arange(20, dtype=np.int16) * 100, (6, 1))
    moved = shift_slice(ramp, np.array([1.0, 0.37]))
    assert (moved[0] == -1024).all()
    assert moved[1:, 1:].tolist() == np.rint(ramp[1:, 1:] - 37).tolist()
    assert np.array_equal(shift_slice(ramp, np.zeros(2)), ramp)


def test_one_slice_beside_the_stack_is_left_out_and_moves_no_other(tmp_path):
    volume = body_hu(6)
    write_study(tmp_path, volume)
    slice_dataset(volume[2], 94, 3, ImagePositionPatient=[-30, 400, 94]).save_as(tmp_path / "3.dcm")
    study = load_study(tmp_path)
    assert study.skipped == (("3.dcm", "a position beside the other slices"),)
    assert np.array_equal(study.volume, volume[[0, 1, 3, 4, 5]])
