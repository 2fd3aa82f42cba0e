"""The competition's loss against its published oracles and a reference written from its formula."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from simulated_runs import RSNA_POSITIVES, RSNA_STUDIES, random_labels, random_predictions
from sklearn.metrics import f1_score

from cspine.metrics import (
    NORMALISATIONS,
    accuracy,
    auc,
    auc_interval,
    column_weights,
    even_weights,
    f1,
    sensitivity,
    specificity,
    study_weights,
    target_losses,
    weighted_log_loss,
)

RSNA_LABELS = (np.arange(RSNA_STUDIES)[:, None] < np.array(RSNA_POSITIVES)).astype(int)
TABLES = st.integers(1, 6).flatmap(
    lambda n: st.tuples(
        arrays(int, (n, 8), elements=st.integers(0, 1)), arrays(float, (n, 8), elements=st.floats(0, 1))
    )
)


def reference(labels: np.ndarray, probabilities: np.ndarray, normalisation: str, clip: float) -> float:
    """The definition of the metric, one number at a time."""
    w, loss = {}, {}
    for i in range(len(labels)):
        for j in range(8):
            p = min(max(float(probabilities[i, j]), clip), 1 - clip)
            w[i, j] = (14 if labels[i, j] else 7) if j == 0 else (2 if labels[i, j] else 1)
            loss[i, j] = -w[i, j] * (math.log(p) if labels[i, j] else math.log(1 - p))
    studies, targets = range(len(labels)), range(8)
    if normalisation == "row":
        rows = [sum(loss[i, j] for j in targets) / sum(w[i, j] for j in targets) for i in studies]
        return sum(rows) / len(rows)
    if normalisation == "global":
        return sum(loss.values()) / sum(w.values())
    columns = [sum(loss[i, j] for i in studies) / sum(w[i, j] for i in studies) for j in targets]
    return (7 * columns[0] + sum(columns[1:])) / 14


@pytest.mark.parametrize(
    ("prediction", "expected_global", "expected_column"),
    [
        (lambda q: 0 * q + 0.5, 0.69315, 0.69315),
        (lambda q: q, 0.61267, 0.59321),
        (lambda q: 2 * q / (1 + q), 0.56675, 0.54958),
    ],
)
def test_the_oracles_of_the_real_label_counts(prediction, expected_global: float, expected_column: float) -> None:
    """Published to five digits. Global and column depend on the counts alone; row needs who has which fractures."""
    constant = np.tile(prediction(np.array(RSNA_POSITIVES) / RSNA_STUDIES), (RSNA_STUDIES, 1))
    assert round(weighted_log_loss(RSNA_LABELS, constant, "global"), 5) == expected_global
    assert round(weighted_log_loss(RSNA_LABELS, constant, "column"), 5) == expected_column


@given(TABLES, st.sampled_from(NORMALISATIONS))
@settings(deadline=None)
def test_equal_to_the_reference(table: tuple[np.ndarray, np.ndarray], normalisation) -> None:
    labels, probabilities = table
    # 1 - p in the reference loses digits next to 1, up to 1e-16 of 1e-6.
    expected = reference(labels, probabilities, normalisation, 1e-6)
    assert weighted_log_loss(labels, probabilities, normalisation) == pytest.approx(expected, rel=1e-9)


@given(TABLES, st.sampled_from(NORMALISATIONS))
@settings(deadline=None)
def test_one_half_costs_ln_2(table: tuple[np.ndarray, np.ndarray], normalisation) -> None:
    labels, _ = table
    assert weighted_log_loss(labels, np.full(labels.shape, 0.5), normalisation) == pytest.approx(math.log(2))


@given(TABLES, st.sampled_from(NORMALISATIONS), st.floats(0, 1))
@settings(deadline=None)
def test_nearer_to_the_truth_is_never_worse(table, normalisation, share: float) -> None:
    labels, probabilities = table
    nearer = probabilities + share * (labels - probabilities)
    after = weighted_log_loss(labels, np.clip(nearer, 0, 1), normalisation)
    assert after <= weighted_log_loss(labels, probabilities, normalisation) * (1 + 1e-9)


@given(TABLES)
@settings(deadline=None)
def test_column_is_global_where_every_target_has_as_many_positives(table: tuple[np.ndarray, np.ndarray]) -> None:
    labels, probabilities = table
    same = np.tile(labels[:, :1], (1, 8))
    column = weighted_log_loss(same, probabilities, "column")
    assert column == pytest.approx(weighted_log_loss(same, probabilities, "global"))


@given(TABLES)
@settings(deadline=None)
def test_row_is_global_where_every_study_has_the_same_labels(table: tuple[np.ndarray, np.ndarray]) -> None:
    labels, probabilities = table
    same = np.tile(labels[:1], (len(labels), 1))
    assert weighted_log_loss(same, probabilities, "row") == pytest.approx(
        weighted_log_loss(same, probabilities, "global")
    )


def test_the_column_loss_is_the_weighted_mean_of_the_targets_losses() -> None:
    labels = random_labels(50)
    predictions = random_predictions(labels, 1.0)
    losses = target_losses(labels, predictions)
    assert (7 * losses[0] + losses[1:].sum()) / 14 == pytest.approx(weighted_log_loss(labels, predictions, "column"))


def test_a_certain_mistake_costs_the_clip_and_no_more() -> None:
    labels = np.zeros((1, 8))
    assert weighted_log_loss(labels, 1 - labels, "row") == pytest.approx(-math.log(1e-6))
    assert weighted_log_loss(labels, 1 - labels, "row", clip=1e-4) == pytest.approx(-math.log(1e-4))


@pytest.mark.parametrize(
    ("labels", "probabilities", "told"),
    [
        (np.zeros((2, 8)), np.full((2, 8), np.nan), "in \\[0, 1\\]"),
        (np.zeros((2, 8)), np.full((2, 8), 1.1), "in \\[0, 1\\]"),
        (np.full((2, 8), 2), np.zeros((2, 8)), "0 or 1"),
        (np.zeros((2, 7)), np.zeros((2, 7)), "must both be"),
        (np.zeros((0, 8)), np.zeros((0, 8)), "no study"),
    ],
)
def test_what_cannot_be_scored_is_refused(labels: np.ndarray, probabilities: np.ndarray, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        weighted_log_loss(labels, probabilities, "column")


def test_an_unknown_normalisation_is_refused() -> None:
    with pytest.raises(ValueError, match="none of row, global, column"):
        weighted_log_loss(np.zeros((1, 8)), np.zeros((1, 8)), "mean")  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1))
@settings(deadline=None)
def test_measures_of_decisions(pairs: list[tuple[bool, bool]]) -> None:
    truth, found = np.array(pairs).T
    assert f1(truth, found) == pytest.approx(f1_score(truth, found, zero_division=0))
    assert accuracy(truth, found) == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))
    positives, negatives = [b for a, b in pairs if a], [not b for a, b in pairs if not a]
    assert sensitivity(truth, found) == (pytest.approx(np.mean(positives)) if positives else None)
    assert specificity(truth, found) == (pytest.approx(np.mean(negatives)) if negatives else None)


def test_auc_counts_ties_half_and_is_unknown_for_one_class() -> None:
    assert auc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.4, 0.8])) == pytest.approx(3.5 / 4)
    assert auc(np.zeros(3), np.array([0.1, 0.2, 0.3])) is None


def test_the_interval_of_an_auc_is_that_of_resampled_studies():
    rng = np.random.default_rng(0)
    labels = (rng.random(400) < 0.4).astype(int)
    scores = np.round(labels + 1.2 * rng.standard_normal(400), 1)  # with ties
    draws = [rng.integers(0, 400, 400) for _ in range(400)]
    resampled = np.percentile([auc(labels[draw], scores[draw]) for draw in draws], [2.5, 97.5])
    np.testing.assert_allclose(auc_interval(labels, scores), resampled, atol=0.012)
    low, high = auc_interval(labels, scores)
    assert (low + high) / 2 == pytest.approx(auc(labels, scores))


@given(TABLES)
def test_the_mean_of_the_weighted_cross_entropy_is_the_column_loss(table: tuple[np.ndarray, np.ndarray]) -> None:
    labels, probabilities = table[0], table[1].clip(0.01, 0.99)
    entropy = -np.where(labels == 1, np.log(probabilities), np.log(1 - probabilities))
    mean = (column_weights(labels, np.ones(labels.shape, bool)) * entropy).sum(axis=1).mean()
    assert mean == pytest.approx(weighted_log_loss(labels, probabilities, "column"))


def test_a_label_that_does_not_count_leaves_the_others_of_its_column() -> None:
    labels = random_labels(20, seed=0)
    counted = np.random.default_rng(1).random(labels.shape) < 0.6
    counted[:, 4] = False
    weights = column_weights(labels, counted)
    assert (weights[~counted] == 0).all()
    assert weights.mean(axis=0) == pytest.approx(np.array([7, 1, 1, 1, 0, 1, 1, 1]) / 14)
    assert column_weights(labels[:0], counted[:0]).shape == (0, 8)


@given(TABLES, st.floats(0.5, 5))
def test_even_weights_make_the_costs_one_on_average(
    table: tuple[np.ndarray, np.ndarray], positive_weight: float
) -> None:
    truth, counted = table
    weights = even_weights(truth, counted, positive_weight)
    costs = weights * (1 + (positive_weight - 1) * truth)
    assert costs.mean() == pytest.approx(1 if counted.any() else 0)
    # On one scale for all.
    np.testing.assert_allclose(weights * counted.sum(), counted * weights.sum(), rtol=1e-9, atol=1e-9)


def test_patients_and_levels_are_each_even_among_themselves() -> None:
    labels = np.array([[1, 1, 0, 0, 0, 0, 0, 0], [0] * 8])
    judged = np.ones((2, 7), bool)
    judged[1, 3:] = False
    weights = study_weights(labels, judged, 2.0)
    np.testing.assert_allclose(weights[:, 0], 1 / 1.5)
    # Ten levels judged of fourteen, of which one counts twice.
    np.testing.assert_allclose(weights[:, 1:], judged * 14 / 11)
    assert study_weights(labels[:0], judged[:0], 2.0).shape == (0, 8)
