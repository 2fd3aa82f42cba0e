"""The sweep against trying every cut, its rule among equals, and what nested means."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cspine.metrics import accuracy, f1
from cspine.thresholds import USUAL, best_threshold, nested_thresholds, usual_rules

# Few distinct values make ties; the odd ones are the edges and neighbouring floats.
SCORES = st.sampled_from([0.0, 5e-324, 0.1, 0.3, 0.5, np.nextafter(0.5, 1), 0.7, np.nextafter(1, 0), 1.0]) | st.floats(
    0, 1
)
CASES = st.lists(st.tuples(st.booleans(), SCORES), min_size=1, max_size=25)


@given(CASES, st.sampled_from(["f1", "accuracy"]))
@settings(deadline=None)
def test_no_cut_is_better(cases: list[tuple[bool, float]], measure) -> None:
    truth, scores = np.array([a for a, _ in cases]), np.array([b for _, b in cases])
    measured = {"f1": f1, "accuracy": accuracy}[measure]
    best = max(measured(truth, scores >= cut) for cut in [*scores, 2.0])
    threshold = best_threshold(truth, scores, measure)
    assert measured(truth, scores >= threshold) == best
    assert 0 <= threshold <= np.nextafter(1.0, 2.0)


def slow_value(truth: np.ndarray, found: np.ndarray, rule: str) -> float:
    """What a rule makes greatest, from the decisions one by one."""
    name, _, text = rule.partition(":")
    pairs = list(zip(truth.tolist(), found.tolist(), strict=True))
    of_positives, of_negatives = [b for a, b in pairs if a], [not b for a, b in pairs if not a]
    if name == "cost":
        return -sum(float(text) * (a and not b) + (b and not a) for a, b in pairs)
    sens, spec = (Fraction(sum(hits), len(hits)) if hits else Fraction(1) for hits in (of_positives, of_negatives))
    if name == "youden":
        return sens + spec
    kept, made = (sens, spec) if name == "sensitivity" else (spec, sens)
    return made if kept >= float(text) else kept - 2


@given(CASES, st.sampled_from(["youden", "sensitivity:0.6", "sensitivity:1", "specificity:0.7", "cost:5", "cost:0.3"]))
@settings(deadline=None)
def test_no_cut_is_better_by_the_other_rules(cases: list[tuple[bool, float]], rule: str) -> None:
    truth, scores = np.array([a for a, _ in cases]), np.array([b for _, b in cases])
    best = max(slow_value(truth, scores >= cut, rule) for cut in [*scores, 2.0])
    threshold = best_threshold(truth, scores, rule)
    assert slow_value(truth, scores >= threshold, rule) == pytest.approx(float(best))


def test_the_rules_by_hand() -> None:
    truth, scores = np.array([0, 1, 0, 0, 1, 1]), np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.8])
    for rule, expected in {
        "sensitivity:1": 0.15,  # finds .2, and so .3 and .4 falsely
        "sensitivity:0.66": 0.5,  # two of three
        "specificity:1": 0.5,
        "specificity:0.3": 0.15,  # may take two false ones, and gains the third fracture
        "cost:10": 0.15,
        "cost:0.1": 0.5,
        "youden": 0.5,
    }.items():
        assert best_threshold(truth, scores, rule) == pytest.approx(expected), rule


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("f2", "there are f1, accuracy"),
        ("f1:2", "is no rule"),
        ("sensitivity", "is no rule"),
        ("cost:dear", "'dear' is no number"),
        ("sensitivity:95", "at most 1"),
        ("cost:0", "above 0"),
        ("specificity:nan", "above 0 and at most 1"),
    ],
)
def test_what_is_no_rule_is_refused(rule: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        best_threshold(np.array([0, 1]), np.array([0.2, 0.4]), rule)


def test_the_rule_asked_for_stands_among_the_usual_ones() -> None:
    assert usual_rules("f1") == USUAL
    assert "sensitivity:0.8" in usual_rules("sensitivity:0.8")
    assert len(usual_rules("cost:3")) == len(USUAL)


@pytest.mark.parametrize(
    ("truth", "scores", "expected"),
    [
        ([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.9], 0.4),
        ([1, 1], [0.4, 0.6], 0.2),  # nothing to leave out: below all
        ([0, 0], [0.4, 0.6], 0.8),  # nothing to find: above all
        ([0, 0], [0.4, 1.0], np.nextafter(1.0, 2.0)),
        ([1, 0], [0.5, 0.5], 0.25),  # ties cannot be parted
    ],
)
def test_f1_by_hand(truth: list[int], scores: list[float], expected: float) -> None:
    assert best_threshold(np.array(truth), np.array(scores)) == pytest.approx(expected, abs=1e-15)


def test_among_equals_the_widest_gap_then_the_lowest() -> None:
    # Accuracy is 3/4 for a cut above .75 (gap .25), between .75 and .5 not, between .5 and .125 (gap .375).
    truth, scores = np.array([0, 1, 0, 0]), np.array([0.75, 0.5, 0.125, 0.0])
    assert best_threshold(truth, scores, "accuracy") == 0.3125
    # Cuts above .75 and between .5 and .25 are equally good and equally wide.
    assert best_threshold(np.array([0, 1, 0]), np.array([0.75, 0.5, 0.25]), "accuracy") == 0.375


def test_the_order_of_the_cases_is_nothing() -> None:
    rng = np.random.default_rng(0)
    truth, scores = rng.integers(0, 2, 50), rng.uniform(size=50).round(1)
    order = rng.permutation(50)
    assert best_threshold(truth, scores) == best_threshold(truth[order], scores[order])


@pytest.mark.parametrize("scores", [[], [np.nan], [1.5], [0.1, 0.2]])
def test_what_cannot_be_cut_is_refused(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="a threshold needs"):
        best_threshold(np.zeros(min(len(scores), 1)), np.array(scores))


def test_a_folds_thresholds_come_from_the_others() -> None:
    rng = np.random.default_rng(0)
    labels, scores, folds = rng.integers(0, 2, (60, 8)), rng.uniform(size=(60, 8)), np.arange(60) % 3
    thresholds = nested_thresholds(labels, scores, folds)
    for fold in range(3):
        here = folds == fold
        for column in range(8):
            assert (thresholds[here, column] == best_threshold(labels[~here, column], scores[~here, column])).all()
        changed = np.where(here[:, None], 1 - labels, labels)
        assert np.array_equal(nested_thresholds(changed, scores, folds)[here], thresholds[here])
    with pytest.raises(ValueError, match="a threshold needs"):
        nested_thresholds(labels, scores, np.zeros(60))
