"""Distorted frequencies come back, nested means nested, and the error against one counted bin by bin."""

import numpy as np
import pytest
from scipy.special import expit, logit
from simulated_runs import random_labels, random_predictions

from cspine.calibrate import metric_prior
from cspine.calibrations import (
    CALIBRATIONS,
    HEADER,
    calibration_error,
    calibration_rows,
    frequency,
    nested_calibration,
    plain_log_loss,
    reliability,
)


def drawn(studies: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """True frequencies (n, 8) and labels drawn by them."""
    rng = np.random.default_rng(seed)
    true = expit(rng.normal(-1, 1.5, (studies, 8)))
    return true, (rng.random(true.shape) < true).astype(int)


def test_a_frequency_is_what_the_metrics_optimum_stands_for() -> None:
    q = np.linspace(0.01, 0.99, 8)
    assert frequency(metric_prior(q)) == pytest.approx(q)


@pytest.mark.parametrize(
    ("name", "distort"),
    [
        ("temperature", lambda z: 3 * z),
        ("Platt", lambda z: 0.4 * z + np.linspace(-2, 2, 8)),
        ("isotonic", lambda z: np.sinh(z) + np.linspace(-2, 2, 8)),
    ],
)
def test_what_each_can_undo_it_undoes(name: str, distort) -> None:
    true, labels = drawn(4000)
    distorted = expit(distort(logit(true)))
    back = CALIBRATIONS[name](distorted, labels)(distorted)
    assert np.abs(back - true).mean() < (0.03 if name == "isotonic" else 0.015) < np.abs(distorted - true).mean()
    assert calibration_error(back, labels) < 0.02 < calibration_error(distorted, labels)


@pytest.mark.parametrize("name", list(CALIBRATIONS))
def test_nested_never_sees_its_rows_and_stays_finite(name: str) -> None:
    labels = random_labels(60)
    labels[:, 3] = 0
    told, folds = random_predictions(labels, 2.0, 1), np.arange(60) % 3
    told[:3] = [[0.0], [1.0], [0.5]]
    nested = nested_calibration(name, told, labels, folds)
    changed = np.where((folds == 1)[:, None], 1 - labels, labels)
    assert np.array_equal(nested_calibration(name, told, changed, folds)[folds == 1], nested[folds == 1])
    assert np.isfinite(plain_log_loss(nested, labels))
    assert ((nested >= 0) & (nested <= 1)).all()


def test_the_error_slowly() -> None:
    true, labels = drawn(100)
    told, seen = true[:, 0], labels[:, 0]
    ranked = sorted(zip(told, seen, strict=True))
    error = 0.0
    for place in range(10):
        part = ranked[10 * place : 10 * place + 10]
        error += abs(sum(a for a, _ in part) - sum(b for _, b in part)) / 100
    assert calibration_error(told, seen, bins=10) == pytest.approx(error)
    assert reliability(told, seen, bins=7)[2].sum() == 100
    assert calibration_error(np.array([0.2, 0.7]), np.array([0, 1])) == pytest.approx(0.25)


def test_the_table_has_a_row_a_way() -> None:
    true, labels = drawn(300)
    rows = calibration_rows(metric_prior(true), labels, np.arange(300) % 3)
    assert [row[0] for row in rows] == list(CALIBRATIONS)
    assert all(len(row) == len(HEADER) for row in rows)
    patients = plain_log_loss(true[:, :1], labels[:, :1])
    assert rows[0][1] == rows[0][2] == f"{patients:.4f}"
