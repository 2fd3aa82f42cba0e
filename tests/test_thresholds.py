"""The sweep against trying every cut, its rule among equals, and what nested means."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cspine.metrics import accuracy, f1
from cspine.thresholds import best_threshold, nested_thresholds

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
