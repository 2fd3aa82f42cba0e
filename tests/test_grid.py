"""The grid of cubic voxels lies where the study lies, whatever the spacing, and leads back to slices and mm."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cspine.config import Config, Preprocess
from cspine.data.geometry import Geometry
from cspine.data.grid import Grid, study_grid
from cspine.data.preprocess import Crop
from cspine.errors import UserError


def places(slices: int, spacing_mm: float, jitter: float = 0.0, seed: int = 0) -> np.ndarray:
    steps = spacing_mm * (1 + jitter * np.random.default_rng(seed).uniform(-1, 1, slices))
    return 200.0 - np.cumsum(steps)


@settings(max_examples=30, deadline=None)
@given(
    slices=st.integers(3, 200),
    spacing_mm=st.floats(0.4, 6),
    voxel_mm=st.floats(1, 6),
    jitter=st.floats(0, 0.5),
)
def test_a_ramp_in_z_stays_the_ramp(slices: int, spacing_mm: float, voxel_mm: float, jitter: float) -> None:
    """Grey values that say where a slice lies say so on the planes and, brought back, on the slices again."""
    z_mm = places(slices, spacing_mm, jitter)
    grid = Grid(z_mm, voxel_mm, 4)
    low, high = grid.plane_z_mm[-1] - voxel_mm, grid.plane_z_mm[0] + voxel_mm
    grey = 250 * (z_mm - low) / (high - low)
    volume = np.broadcast_to(np.rint(grey).astype(np.uint8)[:, None, None, None], (slices, 2, 8, 8))
    pixels = grid.sample_pixels(volume)
    assert pixels.shape == (2, *grid.shape)
    assert (np.diff(pixels[0, :, 0, 0].astype(int)) <= 0).all()
    mm_per_grey = (high - low) / 250
    inner = slice(1, -1)  # beyond the ends the end slice goes on
    found = low + pixels[1, inner, 2, 2] * mm_per_grey
    assert np.abs(found - grid.plane_z_mm[inner]).max(initial=0) < 0.3 * voxel_mm + 1.5 * mm_per_grey + 0.5 * spacing_mm
    back = grid.to_slices(grid.plane_z_mm[:, None])[:, 0]
    assert np.allclose(back, z_mm, atol=1e-6)


def test_pixels_and_labels_of_a_block_lie_in_the_same_voxels() -> None:
    z_mm = places(40, 1.5)
    labels = np.zeros((40, 60, 60), np.uint8)
    labels[8:24, 12:36, 24:48] = 3
    grid = Grid(z_mm, 3.0, 30)
    pixels, sampled = grid.sample_pixels((labels * 80)[:, None])[0], grid.sample_labels(labels)
    assert sampled.shape == grid.shape == pixels.shape
    assert np.count_nonzero(sampled) / np.count_nonzero(labels) == pytest.approx(1 / 8, rel=0.15)
    inner = np.abs(pixels.astype(int) - 120) > 90  # of one thing alone
    assert np.array_equal(sampled[inner] == 3, pixels[inner] > 120)


def geometry(z_mm: np.ndarray) -> Geometry:
    """Slices leaning by 20 degrees, so that no axis of the grid is one of the patient."""
    angle = np.deg2rad(20)
    down = np.array([0, -np.sin(angle), np.cos(angle)])
    column = np.array([0, np.cos(angle), np.sin(angle)])
    positions = np.array([5.0, -60, 0]) + z_mm[:, None] * down
    return Geometry(np.arange(len(z_mm)), positions, np.array([1.0, 0, 0]), column, (0.5, 0.5), None)


def test_grid_voxels_lie_in_the_patient_where_the_study_voxels_do() -> None:
    z_mm = places(50, 1.2)
    frame, crop, shape = geometry(z_mm), Crop(40, -20, 240, 240, 96), (50, 300, 200)
    grid = Grid(frame.z_mm, 3.0, 40)
    point = np.array([20, 150.0, 90])  # z, y, x in the study
    truth = frame.voxel_to_lps(*point)
    cached = crop.to_cached(point[1], point[2])
    voxel = np.array([(grid.plane_z_mm[0] - frame.z_mm[20]) / 3.0, *((np.array(cached) + 0.5) * 40 / 96 - 0.5)])
    assert np.allclose(grid.to_lps(voxel, crop, frame), truth, atol=1e-6)

    planes = np.array([[z, 3.0, 5.0] for z in range(-1, grid.shape[0] + 1)])  # also beyond the end slices
    steps = np.diff(grid.to_lps(planes, crop, frame), axis=0)
    assert np.allclose(steps, -3.0 * frame.normal, atol=1e-6)

    labels = np.zeros(grid.shape, np.uint8)
    nearest = np.rint(voxel).astype(int)
    labels[tuple(nearest)] = 4
    on_study = grid.labels_on_study(labels, crop, shape)
    assert on_study.shape == shape
    assert on_study[20, 150, 90] == 4
    found = np.argwhere(on_study == 4).mean(axis=0)
    assert np.allclose(frame.voxel_to_lps(*found), grid.to_lps(nearest.astype(float), crop, frame), atol=0.7)


def test_labels_beyond_the_field_are_none() -> None:
    z_mm = places(10, 3.0)
    grid, crop = Grid(z_mm, 3.0, 20), Crop(30, 30, 40, 40, 32)
    on_study = grid.labels_on_study(np.full(grid.shape, 2, np.uint8), crop, (10, 100, 100))
    assert (on_study[:, 30:70, 30:70] == 2).all()
    assert np.count_nonzero(on_study) == 10 * 40 * 40


def test_a_field_without_size_in_mm_is_refused() -> None:
    config = Config(name="v", task="vertebra/volume", preprocess=Preprocess(field_mm=None))
    with pytest.raises(UserError, match=r"set preprocess\.field_mm"):
        study_grid(places(5, 1.0), config)
