"""Exact K-means on a histogram: never worse than any other partition, and blind to padding and metal."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from cspine.data.kmeans import histogram, split_points, study_splits


def inertia(values: np.ndarray, counts: np.ndarray, splits: np.ndarray) -> float:
    """Sum of squared distances to the class means."""
    classes = np.searchsorted(splits, values, side="right")
    total = 0.0
    for number in np.unique(classes[counts > 0]):
        mine = classes == number
        mean = np.average(values[mine], weights=counts[mine])
        total += float((counts[mine] * (values[mine] - mean) ** 2).sum())
    return total


def brute_force(values: np.ndarray, counts: np.ndarray, classes: int) -> float:
    return min(inertia(values, counts, np.array(cut)) for cut in combinations(values[counts > 0][1:], classes - 1))


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(0, 20), min_size=4, max_size=9), classes=st.integers(1, 4), low=st.integers(-1024, 0)
)
def test_no_partition_is_better(counts: list[int], classes: int, low: int) -> None:
    weights = np.array(counts)
    classes = min(classes, np.count_nonzero(weights))
    if not classes:
        return
    values = np.cumsum(np.arange(1, len(counts) + 1)) + float(low)  # uneven steps
    splits = split_points(values, weights, classes)
    assert len(splits) == classes - 1
    assert (np.diff(splits) > 0).all()
    assert inertia(values, weights, splits) == pytest.approx(brute_force(values, weights, classes), abs=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_never_worse_than_scikit_learn(classes: int) -> None:
    rng = np.random.default_rng(0)
    sample = np.concatenate([rng.normal(mean, 60, 400) for mean in (-1000, -100, 50, 700)]).round()
    values, counts = np.unique(sample, return_counts=True)
    theirs = KMeans(classes, n_init=5, random_state=0).fit(sample[:, None]).inertia_
    assert inertia(values, counts, split_points(values, counts, classes)) <= theirs * (1 + 1e-9)


def test_classes_of_a_study_lie_between_its_tissues() -> None:
    rng = np.random.default_rng(0)
    means = np.array([-1000, 40, 900])
    volume = (means[rng.integers(0, 3, (4, 30, 30))] + rng.normal(0, 20, (4, 30, 30))).astype(np.int16)
    low, high = study_splits(volume, 3)
    assert -900 < low <= 40
    assert 100 < high <= 900
    volume[0, :5] = -2000  # padding
    volume[1, :1] = 12000  # metal
    assert study_splits(volume, 2)[0] == pytest.approx(study_splits(volume.clip(-1024, 3071), 2)[0])


def test_fewer_values_than_classes_are_told_apart() -> None:
    assert study_splits(np.array([[[-1000, 40, 40]]], np.int16), 4).tolist() == [40]
    assert study_splits(np.full((2, 3, 3), 7, np.int16), 2).tolist() == []


def test_values_beyond_the_ends_count_at_the_ends() -> None:
    assert histogram(np.array([-9, 0, 1, 1, 2, 50], np.int16), 0, 2).tolist() == [2, 2, 2]
