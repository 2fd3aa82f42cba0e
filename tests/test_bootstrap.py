"""Measures of weighted samples are those of repeated rows; intervals cover as often as they say; pairs are paired."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cspine.anatomy import LEVELS
from cspine.bootstrap import MEASURES, Predicted, differences, intervals, measures
from cspine.scores import study_scores


def draw(studies: int, seed: int, skill: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = (rng.random((studies, 8)) < 0.3).astype(int)
    logits = skill * (2 * labels - 1) + rng.normal(0, 1.5, labels.shape)
    # Rounded, so that there are ties.
    return labels, np.round(1 / (1 + np.exp(-logits)), 2).clip(0.01, 0.99)


def by_rows(labels: np.ndarray, probabilities: np.ndarray) -> list[float]:
    """The measures as the rest of the project makes them, of rows that really stand in the table."""
    scores = study_scores(labels, probabilities)
    areas = [scores["targets"][level]["auc"] for level in LEVELS]
    known = [area for area in areas if area is not None]
    patient = scores["targets"]["patient_overall"]["auc"]
    return [
        *(scores["loss"][name] for name in ("column", "row", "global")),
        np.nan if patient is None else patient,
        scores["patient_level"]["accuracy"],
        scores["patient_level"]["f1"],
        np.mean(known) if known else np.nan,
        scores["vertebra_level"]["accuracy"],
        scores["vertebra_level"]["f1"],
    ]


@settings(deadline=None)
@given(studies=st.integers(2, 30), seed=st.integers(0, 1000))
def test_a_study_that_counts_twice_is_a_study_that_stands_there_twice(studies: int, seed: int) -> None:
    labels, probabilities = draw(studies, seed)
    counts = np.random.default_rng(seed).multinomial(studies, np.full(studies, 1 / studies), 3)
    made = measures(labels, Predicted(probabilities, probabilities >= 0.5), counts)
    for row, count in zip(made, counts, strict=True):
        drawn = np.repeat(np.arange(studies), count)
        assert np.allclose(row, by_rows(labels[drawn], probabilities[drawn]), equal_nan=True)


def test_the_value_is_that_of_the_table_and_lies_in_its_interval() -> None:
    labels, probabilities = draw(200, 1)
    found = intervals(labels, Predicted(probabilities, probabilities >= 0.5))
    assert list(found) == list(MEASURES)
    assert np.allclose([interval.value for interval in found.values()], by_rows(labels, probabilities))
    assert all(interval.low < interval.value < interval.high for interval in found.values())


def test_95_of_100_intervals_hold_the_truth() -> None:
    # Of 120 samples of 80 studies, 95 % intervals miss 6 +- 2.4 (binomial), percentiles of so few a little more.
    truth = {name: np.mean([by_rows(*draw(5000, seed))[k] for seed in range(3)]) for k, name in enumerate(MEASURES)}
    missed = dict.fromkeys(MEASURES, 0)
    for seed in range(120):
        labels, probabilities = draw(80, 100 + seed)
        for name, interval in intervals(labels, Predicted(probabilities, probabilities >= 0.5), 200).items():
            missed[name] += not interval.low <= truth[name] <= interval.high
    assert max(missed.values()) <= 18
    assert np.mean(list(missed.values())) > 2


def test_two_tables_are_compared_on_the_same_patients() -> None:
    labels, probabilities = draw(150, 2)
    one = Predicted(probabilities, probabilities >= 0.5)
    same = differences(labels, one, one)
    assert all(interval == (0, 0, 0) for interval in same.values())
    # Nearly the same table: the difference is surer than either.
    nudged = np.where(labels == 1, probabilities + 0.005, probabilities - 0.005)
    better = differences(labels, Predicted(nudged, nudged >= 0.5), one)["column"]
    alone = intervals(labels, one)["column"]
    assert better.high < 0
    assert better.high - better.low < 0.2 * (alone.high - alone.low)


def test_without_a_class_there_is_no_area_but_everything_else() -> None:
    labels, probabilities = draw(20, 3)
    labels[:, 0] = 0
    found = intervals(labels, Predicted(probabilities, probabilities >= 0.5), 50)
    assert np.isnan(found["patient_auc"].value)
    assert np.isfinite(found["column"]).all()
    assert found["vertebra_auc"].value == pytest.approx(by_rows(labels, probabilities)[6])
