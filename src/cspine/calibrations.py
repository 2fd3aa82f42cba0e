"""Is a probability a frequency? Three ways to make it one, fitted by fold, and how far off what is told stays.

The blend is fitted on a loss that counts positives twice, which a case of frequency q minimises by p = 2q / (1 + q).
Its frequency is p / (2 - p), and from there these start: temperature (one slope for all; Guo et al., ICML 2017), Platt
(slope and bias a target; 1999, with his smoothed labels), isotonic (any rising function a target; Zadrozny and Elkan,
KDD 2002).
"""

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression

from cspine.calibrate import log_losses, logits
from cspine.scores import number

Calibrator = Callable[[np.ndarray], np.ndarray]  # frequencies (n, 8) -> frequencies (n, 8)
BINS = 15  # of the expected calibration error, each of as many cases
HEADER = ("", "log loss", "nested", "ECE", "nested", "Brier", "log loss", "nested", "ECE", "nested", "Brier")


def frequency(probabilities: np.ndarray) -> np.ndarray:
    """The frequency q that a probability 2q / (1 + q), best for the metric, stands for."""
    return probabilities / (2 - probabilities)


def fit_temperature(frequencies: np.ndarray, labels: np.ndarray) -> Calibrator:
    """One slope for the logits of all targets, from frequencies and labels (n, 8)."""
    z = logits(frequencies)
    slope, _ = _fit_line(z.ravel(), np.ravel(labels).astype(float), bias=False)
    return lambda asked: expit(slope * logits(asked))


def fit_platt(frequencies: np.ndarray, labels: np.ndarray) -> Calibrator:
    """A slope and a bias for each target."""
    z, count, positives = logits(frequencies), len(labels), labels.sum(axis=0)
    high, low = (positives + 1) / (positives + 2), 1 / (count - positives + 2)
    lines = [_fit_line(z[:, j], np.where(labels[:, j] == 1, high[j], low[j])) for j in range(labels.shape[1])]
    slopes, biases = np.array(lines).T
    return lambda asked: expit(slopes * logits(asked) + biases)


def fit_isotonic(frequencies: np.ndarray, labels: np.ndarray) -> Calibrator:
    """A rising step function for each target, never nearer to 0 or 1 than so many studies can tell."""
    edge = 1 / (len(labels) + 2)
    steps = [
        IsotonicRegression(y_min=edge, y_max=1 - edge, out_of_bounds="clip").fit(frequencies[:, j], labels[:, j])
        for j in range(labels.shape[1])
    ]
    return lambda asked: np.column_stack([step.predict(asked[:, j]) for j, step in enumerate(steps)])


CALIBRATIONS: dict[str, Callable[[np.ndarray, np.ndarray], Calibrator]] = {
    "as blended": lambda _frequencies, _labels: lambda asked: asked,
    "temperature": fit_temperature,
    "Platt": fit_platt,
    "isotonic": fit_isotonic,
}


def nested_calibration(name: str, frequencies: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Frequencies (n, 8) of which each fold's are calibrated on the other folds alone."""
    made = np.empty(frequencies.shape)
    for fold in np.unique(folds):
        here = folds == fold
        made[here] = CALIBRATIONS[name](frequencies[~here], labels[~here])(frequencies[here])
    return made


def calibration_error(frequencies: np.ndarray, truth: np.ndarray, bins: int = BINS) -> float:
    """The expected calibration error with adaptive bins, of arrays of one shape.

    The mean over bins, each of as many cases, of |mean frequency told - frequency seen| (Nixon et al., CVPR
    workshops 2019).
    """
    told, seen, counts = reliability(frequencies, truth, bins)
    return float(np.average(np.abs(told - seen), weights=counts))


def reliability(
    frequencies: np.ndarray, truth: np.ndarray, bins: int = BINS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean frequency told, frequency seen and number of cases of each adaptive bin."""
    order = np.argsort(frequencies, axis=None, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    told, seen = np.ravel(frequencies), np.ravel(truth)
    return tuple(  # type: ignore[return-value]
        np.array(values)
        for values in zip(*((told[part].mean(), seen[part].mean(), len(part)) for part in parts), strict=True)
    )


def calibration_rows(probabilities: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> list[list[str]]:
    """The cells under HEADER: patients, then vertebrae; log loss and ECE in-sample and nested, Brier score nested."""
    start, rows = frequency(probabilities), []
    for name, fit in CALIBRATIONS.items():
        in_sample, nested = fit(start, labels)(start), nested_calibration(name, start, labels, folds)
        row = [name]
        for columns in (slice(0, 1), slice(1, None)):
            truth = labels[:, columns]
            for measure in (plain_log_loss, calibration_error):
                row += [number(measure(table[:, columns], truth), 4) for table in (in_sample, nested)]
            row.append(number(float(((nested[:, columns] - truth) ** 2).mean())))
        rows.append(row)
    return rows


def plain_log_loss(frequencies: np.ndarray, truth: np.ndarray) -> float:
    """The mean log loss in which every label counts the same."""
    return float(log_losses(logits(frequencies), truth)[0].mean())


def _fit_line(z: np.ndarray, labels: np.ndarray, bias: bool = True) -> tuple[float, float]:
    """Slope (never negative) and bias of the logits z (n,) that minimise the log loss of labels within [0, 1]."""

    def value_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        losses, residuals = log_losses(x[0] * z + x[1], labels)
        return float(losses.mean()), np.array([(residuals * z).mean(), residuals.mean() * bias])

    found = minimize(
        value_and_gradient, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(0, None), (None, None)]
    )
    return float(found.x[0]), float(found.x[1])
