"""K-means of grey values, solved exactly: on a line it is K - 1 split points, found by dynamic programming.

Source: Wang and Song, Ckmeans.1d.dp, The R Journal 3 (2), 2011.
"""

import numpy as np
from numba import njit

# HU below are padding, above metal; neither may claim a class of its own.
LOW_HU, HIGH_HU = -1024, 3071


def study_splits(volume: np.ndarray, classes: int) -> np.ndarray:
    """The classes - 1 HU, rising, that split an int16 volume best; a value belongs to the class above its last split.

    Fewer where the volume holds fewer different values than classes.
    """
    counts = histogram(np.ascontiguousarray(volume).reshape(-1), LOW_HU, HIGH_HU)
    return split_points(np.arange(LOW_HU, HIGH_HU + 1, dtype=float), counts, classes)


def split_points(values: np.ndarray, counts: np.ndarray, classes: int) -> np.ndarray:
    """Split a histogram (rising values, counts) so that the sum of squared distances to the class means is least.

    Returns the lowest value (float) of each class but the first; only values that occur are split points.
    """
    occur = counts > 0
    values, weights = values[occur], counts[occur].astype(float)
    starts = _best_starts(values - values.mean(), weights, min(classes, len(values)))
    return values[starts[1:]]


@njit(cache=True)
def histogram(values: np.ndarray, low: int, high: int) -> np.ndarray:
    """Counts, int64 (high - low + 1,), of whole numbers; those beyond the ends count at the ends."""
    counts = np.zeros(high - low + 1, np.int64)
    for value in values:
        counts[min(max(value, low), high) - low] += 1
    return counts


@njit(cache=True)
def _best_starts(values: np.ndarray, weights: np.ndarray, classes: int) -> np.ndarray:
    """The first index of each class."""
    n = len(values)
    # Running sums give the inertia of values[i:j] as S2 - S1^2 / S0.
    s0, s1, s2 = np.zeros(n + 1), np.zeros(n + 1), np.zeros(n + 1)
    for i in range(n):
        s0[i + 1] = s0[i] + weights[i]
        s1[i + 1] = s1[i] + weights[i] * values[i]
        s2[i + 1] = s2[i] + weights[i] * values[i] ** 2
    best = np.full((classes + 1, n + 1), np.inf)  # inertia of the first j values in k classes
    start = np.zeros((classes + 1, n + 1), np.int64)  # where the last of these classes starts
    best[0, 0] = 0.0
    for k in range(1, classes + 1):
        for j in range(k, n + 1):
            for i in range(k - 1, j):
                inertia = s2[j] - s2[i] - (s1[j] - s1[i]) ** 2 / (s0[j] - s0[i])
                if best[k - 1, i] + inertia < best[k, j]:
                    best[k, j] = best[k - 1, i] + inertia
                    start[k, j] = i
    starts = np.zeros(classes, np.int64)
    end = n
    for k in range(classes, 0, -1):
        end = start[k, end]
        starts[k - 1] = end
    return starts
