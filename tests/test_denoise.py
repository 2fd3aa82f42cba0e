"""Region means take the noise out of flat regions and keep the borders between classes."""

import numpy as np

from cspine.data.denoise import grey_classes, region_means

SPLITS = np.array([-500.0, 300.0])


def noisy() -> tuple[np.ndarray, np.ndarray]:
    """A slice with two bones in soft tissue in air, int16 HU, and the same without noise."""
    clean = np.full((64, 64), -1000)
    clean[8:56, 8:56] = 40
    clean[16:28, 16:28], clean[36:48, 36:48] = 700, 1000
    return (clean + np.random.default_rng(0).normal(0, 30, clean.shape)).round().astype(np.int16), clean


def test_a_value_on_a_split_belongs_to_the_class_above() -> None:
    assert grey_classes(np.array([[-501, -500, 299, 300]], np.int16), SPLITS).tolist() == [[0, 1, 1, 2]]


def test_noise_falls_and_regions_keep_their_own_mean() -> None:
    pixels, clean = noisy()
    result = region_means(pixels, SPLITS)
    assert result.dtype == np.int16
    flat = (slice(30, 35), slice(10, 54))
    assert pixels[flat].std() > 20
    assert result[flat].std() == 0
    assert abs(result - clean).max() <= 5, "each region is its own mean: the two bones differ"
    assert 15 < abs(result.astype(int) - pixels).mean() < 35  # of normal noise of 30 HU: 24
    assert np.array_equal(grey_classes(result, SPLITS), grey_classes(pixels, SPLITS))


def test_a_gap_fainter_than_a_class_is_lost() -> None:
    pixels = np.full((20, 20), 900, np.int16)
    pixels[10] = 400
    assert (region_means(pixels, SPLITS) == 875).all()


def test_diagonal_neighbours_are_two_regions() -> None:
    pixels = np.array([[700, -1000], [-1000, 900]], np.int16)
    assert np.array_equal(region_means(pixels, SPLITS), pixels)


def test_one_class_becomes_one_value() -> None:
    assert region_means(np.array([[1, 2], [3, 6]], np.int16), np.zeros(0)).tolist() == [[3, 3], [3, 3]]
