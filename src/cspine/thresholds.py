"""Operating points: where to cut a probability for the best F1 or accuracy. A case is positive where p >= threshold."""

from typing import Literal

import numpy as np
from numba import njit

Measure = Literal["f1", "accuracy"]


def best_threshold(labels: np.ndarray, probabilities: np.ndarray, measure: Measure = "f1") -> float:
    """The best of all cuts of the probabilities (n,): halfway between neighbouring distinct ones, below and above all.

    Among equally good cuts the one in the widest gap, which new data disturb least; then the lowest, which finds most.
    Without positives the cut above all. Raises ValueError for no cases, NaN, and an unknown measure.
    """
    if measure not in ("f1", "accuracy"):
        raise ValueError(f"measure {measure!r} is neither 'f1' nor 'accuracy'")
    scores = np.asarray(probabilities, np.float64)
    if not len(scores) or len(scores) != len(labels) or not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError("a threshold needs as many labels as probabilities, at least one, all within [0, 1]")
    order = np.argsort(-scores, kind="stable")
    return float(_sweep(np.asarray(labels, bool)[order], scores[order], measure == "f1"))


def best_thresholds(labels: np.ndarray, probabilities: np.ndarray, measure: Measure = "f1") -> np.ndarray:
    """`best_threshold` of every column of (n, targets): (targets,)."""
    columns = zip(np.asarray(labels).T, np.asarray(probabilities).T, strict=True)
    return np.array([best_threshold(truth, scores, measure) for truth, scores in columns])


def nested_thresholds(
    labels: np.ndarray, probabilities: np.ndarray, folds: np.ndarray, measure: Measure = "f1"
) -> np.ndarray:
    """The threshold to hold each element of (n, targets) against, fitted on the other folds; (n, targets)."""
    labels, probabilities, folds = np.asarray(labels), np.asarray(probabilities), np.asarray(folds)
    thresholds = np.empty(probabilities.shape)
    for fold in np.unique(folds):
        others = folds != fold
        thresholds[~others] = best_thresholds(labels[others], probabilities[others], measure)
    return thresholds


@njit(cache=True)
def _sweep(labels: np.ndarray, scores: np.ndarray, is_f1: bool) -> float:
    """One pass over the scores, in descending order, moving the cut down over each group of equal ones."""
    count, positives = len(labels), labels.sum()
    true_positives, index = 0, 0
    best, best_gap, threshold = -1.0, -1.0, 0.0
    while True:
        upper = scores[index - 1] if index > 0 else 1.0
        lower = scores[index] if index < count else 0.0
        value = _value(true_positives, index - true_positives, positives, count, is_f1)
        gap = upper - lower
        if value > best or (value == best and gap >= best_gap):
            best, best_gap = value, gap
            threshold = _cut(upper, lower, index == 0)
        if index == count:
            return threshold
        while index < count and scores[index] == lower:
            true_positives += labels[index]
            index += 1


@njit(cache=True)
def _value(true_positives: int, false_positives: int, positives: int, count: int, is_f1: bool) -> float:
    # Quotients of integers: equal measures are equal floats, so that ties are seen.
    if is_f1:
        either = true_positives + false_positives + positives
        return 2 * true_positives / either if either else 1.0
    return (count - positives - false_positives + true_positives) / count


@njit(cache=True)
def _cut(upper: float, lower: float, above_all: bool) -> float:
    """Halfway, yet above `lower` and not above `upper`: between neighbouring floats there is no middle."""
    middle = lower + (upper - lower) / 2
    if middle > lower:
        return middle
    return np.nextafter(1.0, 2.0) if above_all else upper
