"""The penalised loss and its gradient, what it falls back on, and that its minimum is found."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import check_grad
from simulated_runs import RSNA_POSITIVES, RSNA_STUDIES, random_labels, random_predictions

from cspine.calibrate import LEAST_SLOPE, Problem, fit_calibration, logits, metric_prior, smoothed_prevalence
from cspine.metrics import target_losses, weighted_log_loss


@given(st.floats(0, 1))
@settings(deadline=None)
def test_logits_are_finite_and_go_back(probability: float) -> None:
    z = logits(np.array([probability]))
    assert 1 / (1 + np.exp(-z[0])) == pytest.approx(np.clip(probability, 1e-6, 1 - 1e-6), rel=1e-12)


@pytest.mark.parametrize("value", [np.nan, -0.1, 1.1])
def test_what_is_no_probability_has_no_logit(value: float) -> None:
    with pytest.raises(ValueError, match="in \\[0, 1\\]"):
        logits(np.array([value]))


def test_the_prior_is_the_best_constant() -> None:
    labels = random_labels(300)
    best = target_losses(labels, np.tile(metric_prior(labels.mean(axis=0)), (300, 1)))
    for change in (0.99, 1.01):
        other = target_losses(labels, np.tile(metric_prior(labels.mean(axis=0)) * change, (300, 1)))
        assert (best < other).all()
    q = labels.mean(axis=0)
    assert np.allclose(metric_prior(q), 2 * q / (1 + q))


def test_smoothing_moves_rsna_by_nothing_and_keeps_an_empty_level_possible() -> None:
    rsna = (np.arange(RSNA_STUDIES)[:, None] < np.array(RSNA_POSITIVES)).astype(int)
    assert np.abs(smoothed_prevalence(rsna) - rsna.mean(axis=0)).max() < 3e-4
    for labels in (np.zeros((10, 8)), np.ones((10, 8))):
        smoothed = smoothed_prevalence(labels)
        assert ((smoothed > 0) & (smoothed < 1)).all()


@given(st.integers(1, 4), st.integers(2, 20), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_gradient_against_finite_differences(members: int, studies: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    problem = Problem.of(rng.normal(size=(members, studies, 8)), rng.integers(0, 2, (studies, 8)))
    x = rng.normal(size=members + 8)
    # Forward differences of step 1.5e-8 on curvatures of order 1.
    assert check_grad(lambda v: problem.value_and_gradient(v)[0], lambda v: problem.value_and_gradient(v)[1], x) < 1e-5


def test_without_the_penalty_it_is_the_column_loss() -> None:
    labels = random_labels(40)
    z = logits(random_predictions(labels, 1.0))[None]
    problem = Problem.of(z, labels)
    # Slope 1 and the biases at their prior cost no penalty.
    x = np.concatenate([[1.0], problem.prior])
    predicted = 1 / (1 + np.exp(-(problem.centred[0] + problem.prior)))
    assert problem.value_and_gradient(x)[0] == pytest.approx(weighted_log_loss(labels, predicted, "column"))


@pytest.mark.parametrize("studies", [20, 400])
@pytest.mark.parametrize("strength", [0.0, -1.0])
def test_without_information_it_falls_back_on_the_prior(studies: int, strength: float) -> None:
    """Noise, and a member that orders cases backwards."""
    labels = random_labels(studies, seed=3)
    z = logits(random_predictions(labels, strength))[None]
    fit = fit_calibration(z, labels)
    predicted = 1 / (1 + np.exp(-(fit.slopes[0] * z[0] + fit.biases)))
    prior = metric_prior(smoothed_prevalence(labels))
    # Noise of 20 studies still fits 20 labels a little.
    assert np.abs(predicted - prior).mean() < (0.05 if studies == 20 else 0.02)
    assert strength == 0 or fit.slopes[0] == LEAST_SLOPE


@pytest.mark.parametrize("positives", [0, 1, 2])
def test_a_level_with_hardly_a_positive_stays_within_reason(positives: int) -> None:
    """A bias alone cannot run away: the probability at the mean logit stays within what one or two studies can tell."""
    labels = random_labels(32, seed=1)
    labels[:, 1] = np.arange(32) < positives
    z = logits(np.clip(random_predictions(labels, 1.0), 0.02, 0.98))[None]
    # The positives have the highest scores, so that the loss alone would drive C1's bias without bound.
    z[0, :, 1] = np.where(labels[:, 1] == 1, 0.1, -0.1)
    fit = fit_calibration(z, labels)
    predicted = 1 / (1 + np.exp(-(fit.slopes[0] * z[0, :, 1] + fit.biases[1])))
    assert ((predicted > 0.001) & (predicted < 0.4)).all()


def test_the_minimum_is_one_whatever_the_order_of_members() -> None:
    labels = random_labels(80)
    z = logits(np.stack([random_predictions(labels, s, seed) for seed, s in enumerate((1.0, 0.5, 0.5, 0.0))]))
    fit, other = fit_calibration(z, labels), fit_calibration(z[::-1], labels)
    # The optimiser stops at a gradient of 1e-9 on curvatures above 1e-2.
    assert np.allclose(fit.slopes, other.slopes[::-1], atol=1e-5)
    assert np.allclose(fit.biases, other.biases, atol=1e-5)
    again = fit_calibration(z, labels)
    assert np.array_equal(fit.slopes, again.slopes)
    assert np.array_equal(fit.biases, again.biases)
