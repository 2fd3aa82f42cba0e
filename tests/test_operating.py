"""Operating points beside the measures, PPV and NPV beside counted patients, the prior's shift beside resampling."""

import numpy as np
import pytest
from simulated_runs import random_labels, random_predictions

from cspine.metrics import f1, sensitivity, specificity
from cspine.operating import (
    HEADER,
    MEASURES,
    operating_points,
    operating_rows,
    predictive_values,
    shift_prevalence,
    threshold_rows,
)
from cspine.thresholds import USUAL, best_thresholds, nested_thresholds

LABELS = random_labels(120)
PREDICTIONS, FOLDS = random_predictions(LABELS, 0.7, 1), np.arange(120) % 4


def test_every_rule_and_target_in_sample_and_nested() -> None:
    points = operating_points(LABELS, PREDICTIONS, FOLDS, "sensitivity:0.8", prevalence=0.1)
    assert len(points) == len(USUAL) * 9
    rule = points[points["rule"] == "sensitivity:0.8"].set_index("target")
    cuts = best_thresholds(LABELS, PREDICTIONS, "sensitivity:0.8")
    assert rule.loc["C5", "threshold"] == cuts[5]
    assert rule.loc["C5", "specificity"] == specificity(LABELS[:, 5], PREDICTIONS[:, 5] >= cuts[5])
    # What is asked for is reached on the rows themselves, target by target.
    assert (rule["sensitivity"] >= 0.8).all()
    nested = nested_thresholds(LABELS, PREDICTIONS, FOLDS, "sensitivity:0.8") <= PREDICTIONS
    assert rule.loc["vertebrae", "nested_f1"] == f1(LABELS[:, 1:], nested[:, 1:])
    patient = rule.loc["patient_overall"]
    assert patient["nested_sensitivity"] == sensitivity(LABELS[:, 0], nested[:, 0])
    expected = predictive_values(patient["nested_sensitivity"], patient["nested_specificity"], 0.1)
    assert (patient["ppv"], patient["npv"]) == expected
    assert np.isnan(rule.loc["C5", "ppv"])


def test_each_rule_is_the_best_at_what_it_is_for() -> None:
    points = operating_points(LABELS, PREDICTIONS, FOLDS, "f1").set_index(["target", "rule"])
    for target in ("patient_overall", "C7"):
        assert points.loc[target]["f1"].idxmax() == "f1"
        assert points.loc[target]["accuracy"].max() == points.loc[target, "accuracy"]["accuracy"]


def test_rows_fit_their_headings() -> None:
    points = operating_points(LABELS, PREDICTIONS, FOLDS, "f1")
    assert [row[0] for row in operating_rows(points, "patient_overall")] == list(USUAL)
    assert all(len(row) == len(HEADER) for row in operating_rows(points, "vertebrae"))
    rows = threshold_rows(points, "f1")
    assert [row[0] for row in rows][-2:] == ["patient_overall", "vertebrae"]
    assert all(len(row) == 2 + 2 * len(MEASURES) for row in rows)
    assert rows[-1][1] == "-"


def test_predictive_values_by_counting_patients() -> None:
    # Of 1000 patients 70 are fractured; 56 of them are found, and 186 of the 930 others.
    ppv, npv = predictive_values(0.8, 0.8, 0.07)
    assert ppv == pytest.approx(56 / (56 + 186))
    assert npv == pytest.approx(744 / (744 + 14))
    assert predictive_values(0.0, 1.0, 0.07) == (None, pytest.approx(0.93))
    assert predictive_values(None, 1.0, 0.07) == (None, None)


def test_shifted_frequencies_are_those_of_the_other_population() -> None:
    """Drop positives until they are as rare as in a clinic: what is seen then is what the shift foretells."""
    rng = np.random.default_rng(0)
    labels = (rng.random(400_000) < 0.48).astype(int)
    scores = np.clip(np.round(rng.normal(labels, 1.0)), -1, 2)
    here = np.array([labels[scores == value].mean() for value in (-1, 0, 1, 2)])
    kept = (labels == 0) | (rng.random(len(labels)) < 0.07 / 0.93 * 0.52 / 0.48)
    seen = np.array([labels[kept & (scores == value)].mean() for value in (-1, 0, 1, 2)])
    assert shift_prevalence(here, 0.48, 0.07) == pytest.approx(seen, abs=0.01)
    assert shift_prevalence(here, 0.48, 0.48) == pytest.approx(here)
