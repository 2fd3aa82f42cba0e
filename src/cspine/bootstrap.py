"""How sure a score is: 95 % intervals by drawing patients again, of one table of predictions and of two side by side.

A patient is drawn with all of his levels, which depend on each other (Efron and Tibshirani 1993, chapters 6 and 13).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from cspine.anatomy import COLUMN_WEIGHTS
from cspine.metrics import loss_terms

# In the order of the columns of `measures`; an AUC of vertebrae is the mean of the levels'.
MEASURES = (
    "column",
    "row",
    "global",
    "patient_auc",
    "patient_accuracy",
    "patient_f1",
    "vertebra_auc",
    "vertebra_accuracy",
    "vertebra_f1",
)
RESAMPLES, SEED = 1000, 0
# So many draws at a time: 2,019 studies of 8 targets then take some 30 MB.
AT_A_TIME = 100


class Predicted(NamedTuple):
    """Probabilities and decisions of studies, (n, 8) each."""

    probabilities: np.ndarray
    decisions: np.ndarray


class Interval(NamedTuple):
    """A value and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def intervals(labels: np.ndarray, predicted: Predicted, resamples: int = RESAMPLES) -> dict[str, Interval]:
    """Every measure of predictions against labels (n, 8), with the percentiles of `resamples` draws of patients."""
    return _summary(_value(labels, predicted), _resampled(labels, predicted, resamples))


def differences(
    labels: np.ndarray, one: Predicted, other: Predicted, resamples: int = RESAMPLES
) -> dict[str, Interval]:
    """Every measure of `one` minus that of `other`, both on the same draws of patients."""
    draws = _resampled(labels, one, resamples) - _resampled(labels, other, resamples)
    return _summary(_value(labels, one) - _value(labels, other), draws)


def loss_interval(labels: np.ndarray, probabilities: np.ndarray, resamples: int = RESAMPLES) -> Interval:
    """The column loss alone, as `intervals` has it, in a fraction of the time."""
    return _interval(*_column_losses(labels, probabilities, resamples))


def loss_difference(labels: np.ndarray, one: np.ndarray, other: np.ndarray, resamples: int = RESAMPLES) -> Interval:
    """The column loss of probabilities `one` less that of `other`, both on the same draws of patients."""
    (value, draws), (less, others) = (_column_losses(labels, table, resamples) for table in (one, other))
    return _interval(value - less, draws - others)


def _column_losses(labels: np.ndarray, probabilities: np.ndarray, resamples: int) -> tuple[float, np.ndarray]:
    """The loss and that of each draw (resamples,)."""
    losses, weights = loss_terms(labels, probabilities)
    everyone = np.ones((1, len(labels)))
    value, *draws = (_column(counts, losses, weights) for counts in (everyone, *_draws(len(labels), resamples)))
    return float(value[0]), np.concatenate(draws)


def _column(counts: np.ndarray, losses: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.average((counts @ losses) / (counts @ weights), axis=1, weights=COLUMN_WEIGHTS)


def measures(labels: np.ndarray, predicted: Predicted, counts: np.ndarray) -> np.ndarray:
    """MEASURES of samples (b, 9) in which study i stands `counts[:, i]` times; NaN where one is not defined."""
    losses, weights = loss_terms(labels, predicted.probabilities)
    positive, found = np.asarray(labels, bool), np.asarray(predicted.decisions, bool)
    studies = counts.sum(axis=1)
    row = counts @ (losses.sum(axis=1) / weights.sum(axis=1)) / studies
    everything = (counts @ losses.sum(axis=1)) / (counts @ weights.sum(axis=1))
    right, both = (counts @ values.astype(float) for values in (positive == found, positive & found))
    either = counts @ positive.astype(float) + counts @ found.astype(float)
    areas = np.stack(
        [_areas(positive[:, j], predicted.probabilities[:, j], counts) for j in range(labels.shape[1])], axis=1
    )
    with np.errstate(invalid="ignore"):
        return np.column_stack(
            [
                _column(counts, losses, weights),
                row,
                everything,
                areas[:, 0],
                right[:, 0] / studies,
                _f1(both[:, 0], either[:, 0]),
                _nanmean(areas[:, 1:]),
                right[:, 1:].mean(axis=1) / studies,
                _f1(both[:, 1:].sum(axis=1), either[:, 1:].sum(axis=1)),
            ]
        )


def _areas(positive: np.ndarray, scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(b,) the area under the ROC curve of each sample, ties counting half; NaN where a class is missing."""
    order = np.argsort(scores, kind="stable")
    first = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    drawn = counts[:, order].astype(float)
    hits = np.add.reduceat(drawn * positive[order], first, axis=1)
    others = np.add.reduceat(drawn * ~positive[order], first, axis=1)
    below = np.cumsum(others, axis=1) - others / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return (hits * below).sum(axis=1) / (hits.sum(axis=1) * others.sum(axis=1))


def _f1(both: np.ndarray, either: np.ndarray) -> np.ndarray:
    return np.where(either > 0, 2 * both / np.maximum(either, 1), 0.0)


def _nanmean(values: np.ndarray) -> np.ndarray:
    """(b,) the mean of what is known in each row, NaN where nothing is."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0).sum(axis=1) / known.sum(axis=1)


def _value(labels: np.ndarray, predicted: Predicted) -> np.ndarray:
    return measures(labels, predicted, np.ones((1, len(labels))))[0]


def _resampled(labels: np.ndarray, predicted: Predicted, resamples: int) -> np.ndarray:
    return np.concatenate([measures(labels, predicted, counts) for counts in _draws(len(labels), resamples)])


def _draws(studies: int, resamples: int) -> Iterator[np.ndarray]:
    """How often each study is drawn (b, n); the same for every table of as many studies, so that two can be paired."""
    rng = np.random.default_rng(SEED)
    for start in range(0, resamples, AT_A_TIME):
        size = min(AT_A_TIME, resamples - start)
        yield rng.multinomial(studies, np.full(studies, 1 / studies), size).astype(float)


def _summary(values: np.ndarray, draws: np.ndarray) -> dict[str, Interval]:
    """Draws in which a measure is not defined have no part in its interval."""
    return {name: _interval(value, column) for name, value, column in zip(MEASURES, values, draws.T, strict=True)}


def _interval(value: float, draws: np.ndarray) -> Interval:
    known = draws[~np.isnan(draws)]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
    return Interval(float(value), float(low), float(high))
