"""Neighbours are chosen in millimetres, and images keep the order of slices and the place of pixels."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cspine.config import Data, DatasetConfig, Preprocess
from cspine.data.slices import channels, neighbour_indices, slice_batch, slice_image, slices_per_image, visible_slices

SETTINGS = Data(image_size_px=32, neighbours=1, neighbour_step_mm=2.0)


@given(
    gaps=st.lists(st.floats(0.1, 5.0), min_size=0, max_size=30),
    start=st.floats(-300, 300),
    step=st.floats(0, 10),
    neighbours=st.integers(0, 3),
)
def test_each_neighbour_is_the_nearest_slice_there_is(
    gaps: list[float], start: float, step: float, neighbours: int
) -> None:
    z_mm = start - np.cumsum([0.0, *gaps])
    settings = replace(SETTINGS, neighbours=neighbours, neighbour_step_mm=step)
    found = neighbour_indices(z_mm, np.arange(len(z_mm)), settings)
    assert found.shape == (len(z_mm), slices_per_image(settings))
    for index, row in enumerate(found):
        for k, neighbour in zip(range(neighbours, -neighbours - 1, -1), row, strict=True):
            wanted = z_mm[index] + k * step
            assert abs(z_mm[neighbour] - wanted) <= np.abs(z_mm - wanted).min() + 1e-9


def test_half_the_spacing_means_twice_the_slices_away() -> None:
    coarse, fine = -np.arange(20) * 1.0, -np.arange(40) * 0.5
    assert neighbour_indices(coarse, np.array([10]), SETTINGS).tolist() == [[8, 10, 12]]
    assert neighbour_indices(fine, np.array([20]), SETTINGS).tolist() == [[16, 20, 24]]


def test_the_cranial_neighbour_is_the_first_channel() -> None:
    volume = np.broadcast_to(np.arange(20, dtype=np.uint8)[:, None, None, None], (20, 1, 32, 32))
    batch = slice_batch(volume, -np.arange(20) * 1.0, np.array([0, 10]), SETTINGS)
    assert batch.shape == (2, 3, 32, 32)
    assert batch[:, :, 5, 7].tolist() == [[0, 0, 2], [8, 10, 12]]


def test_many_neighbours_make_as_many_channels() -> None:
    settings = replace(SETTINGS, neighbours=4)
    config = DatasetConfig(data=settings, preprocess=Preprocess(windows=("bone", "wide")))
    batch = slice_batch(np.zeros((20, 2, 64, 64), np.uint8), -np.arange(20) * 1.0, np.array([3]), settings)
    assert batch.shape == (1, channels(config), 32, 32) == (1, 18, 32, 32)


def test_the_windows_of_a_slice_stay_together() -> None:
    volume = np.zeros((20, 2, 32, 32), np.uint8)
    volume += np.arange(20, dtype=np.uint8)[:, None, None, None]
    volume[:, 1] += 100
    batch = slice_batch(volume, -np.arange(20) * 1.0, np.array([10]), SETTINGS)
    assert batch[0, :, 5, 7].tolist() == [8, 108, 10, 110, 12, 112]


def test_resizing_keeps_the_place() -> None:
    volume = np.zeros((1, 1, 64, 64), np.uint8)
    volume[0, 0, 8:16, 40:48] = 200
    image = slice_image(volume, np.array([0]), SETTINGS)
    assert image.shape == (32, 32, 1)
    assert (image[4:8, 20:24] == 200).all()
    assert image.sum() == 200 * 16


def test_the_centre_share_is_cut_from_the_middle() -> None:
    volume = np.zeros((1, 1, 64, 64), np.uint8)
    volume[0, 0, 16:48, 16:48] = 100
    half = replace(SETTINGS, centre_share=0.5)
    assert (slice_image(volume, np.array([0]), half) == 100).all()
    assert slice_image(volume, np.array([0]), SETTINGS).min() == 0


def test_visible_slices_are_those_with_some_level() -> None:
    presence = np.zeros((4, 7))
    presence[1, 6], presence[2, 0] = 0.9, 0.01
    assert visible_slices(presence).tolist() == [False, True, False, False]
