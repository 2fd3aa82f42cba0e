"""Calibration of logits for the competition's loss, and the priors it falls back on. Needs no torch; runs on Kaggle.

The model is p_it = sigmoid(sum_m s_m z_mit + b_t): one slope s_m > 0 a member, shared by the targets, and one bias a
target. Written with slopes rather than with weights and a scale it is convex: the fit has one answer.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from cspine.anatomy import COLUMN_WEIGHTS, NEGATIVE_WEIGHTS, POSITIVE_WEIGHTS
from cspine.metrics import loss_weights

# Probabilities are kept this far from 0 and 1, so that no member's certainty outweighs all others.
CLIP = 1e-6
# Pulls to the prior solution, in studies: biases to within about 2 of the prior's logit, the scale to within about 6
# of 1. Chosen on simulated tables of 40 to 400 studies, where stronger ones hold back members whose probabilities are
# squeezed together (a mean over slices does that) and weaker ones gain nothing. On 2,019 studies they hardly matter.
BIAS_RIDGE = 0.3
SLOPE_RIDGE = 0.03
# The levels' rates resemble each other, so each is estimated as if this many more studies had shown the pooled rate.
POOLED_STUDIES = 5.0
# Slopes stay positive: a member that orders cases backwards is to be left out, not turned round.
LEAST_SLOPE = 1e-6
GRADIENT_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Fit:
    """slopes (members,), biases (8,)."""

    slopes: np.ndarray
    biases: np.ndarray


def logits(probabilities: np.ndarray) -> np.ndarray:
    """ln(p / (1 - p)) of probabilities kept CLIP away from 0 and 1. Raises ValueError for what is no probability."""
    # One layout in memory, because it decides the order in which numpy sums, and with it the last bit.
    values = np.ascontiguousarray(probabilities, np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("probabilities must lie in [0, 1]")
    clipped = np.clip(values, CLIP, 1 - CLIP)
    return np.log(clipped) - np.log1p(-clipped)


def log_losses(eta: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The plain log loss of every logit and its derivative p - y; one exponential for both."""
    small = np.exp(-np.abs(eta))
    positive = eta >= 0
    # ln(1 + exp(eta)) - y eta, for either sign of eta.
    losses = np.log1p(small) + eta * (positive - labels)
    return losses, np.where(positive, 1.0, small) / (1 + small) - labels


def metric_prior(prevalence: np.ndarray) -> np.ndarray:
    """The constant that minimises the loss at a prevalence q, for each of the eight targets: 2q / (1 + q)."""
    positive = np.asarray(POSITIVE_WEIGHTS) * prevalence
    return positive / (positive + np.asarray(NEGATIVE_WEIGHTS) * (1 - np.asarray(prevalence)))


def smoothed_prevalence(labels: np.ndarray) -> np.ndarray:
    """The prevalence of each target (8,) with POOLED_STUDIES added, so that it is never 0 or 1.

    The added studies have the pooled rate of the seven levels, and one half for the patient. On the 2,019 studies of
    RSNA this moves no prevalence by more than 0.0003.
    """
    count, positives = len(labels), np.asarray(labels, np.float64).sum(axis=0)
    pooled = (positives[1:].sum() + 0.5) / (7 * count + 1)
    return (positives + POOLED_STUDIES * np.array([0.5, *[pooled] * 7])) / (count + POOLED_STUDIES)


def nested_prior(labels: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """(n, 8): for each study the best constant of the folds that it is not in."""
    predictions = np.empty(labels.shape)
    for fold in np.unique(folds):
        predictions[folds == fold] = metric_prior(smoothed_prevalence(labels[folds != fold]))
    return predictions


def fit_calibration(member_logits: np.ndarray, labels: np.ndarray) -> Fit:
    """Minimise the column loss of labels (n, 8) over slopes and biases, from logits (members, n, 8).

    Without information in the logits the fit falls back on the metric's prior of each target.
    """
    problem = Problem.of(member_logits, labels)
    members = len(problem.centred)
    start = np.concatenate([np.full(members, 1 / members), problem.prior])
    bounds = [(LEAST_SLOPE, None)] * members + [(None, None)] * len(COLUMN_WEIGHTS)
    options = {"maxiter": 1000, "maxfun": 5000, "ftol": 1e-14, "gtol": 1e-9}
    found = minimize(problem.value_and_gradient, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    _, gradient = problem.value_and_gradient(found.x)
    # At its bound a slope may still want to go down.
    held = np.flatnonzero((found.x[:members] <= LEAST_SLOPE) & (gradient[:members] > 0))
    if np.abs(np.delete(gradient, held)).max() > GRADIENT_TOLERANCE:
        raise RuntimeError(f"the calibration did not converge: {found.message}")
    slopes = found.x[:members]
    return Fit(slopes, found.x[members:] - slopes @ problem.centre)


@dataclass(frozen=True)
class Problem:
    """The penalised column loss as a function of x = (slopes, biases at the mean logit of each target)."""

    centred: np.ndarray  # (members, n, 8) logits less their mean over the studies
    centre: np.ndarray  # (members, 8) that mean
    labels: np.ndarray  # (n, 8)
    weights: np.ndarray  # (n, 8), such that the loss is their sum with the plain log losses
    prior: np.ndarray  # (8,) logit of the metric's prior, to which the biases are pulled
    bias_ridge: np.ndarray  # (8,)
    slope_ridge: float

    @classmethod
    def of(cls, member_logits: np.ndarray, labels: np.ndarray) -> "Problem":
        labels = np.ascontiguousarray(labels, np.float64)
        centre = member_logits.mean(axis=1)
        totals = loss_weights(labels).sum(axis=0)
        share = np.asarray(COLUMN_WEIGHTS) / np.sum(COLUMN_WEIGHTS) / totals
        return cls(
            centred=member_logits - centre[:, None],
            centre=centre,
            labels=labels,
            weights=loss_weights(labels) * share,
            prior=logits(metric_prior(smoothed_prevalence(labels))),
            bias_ridge=BIAS_RIDGE * share * np.asarray(NEGATIVE_WEIGHTS),
            slope_ridge=SLOPE_RIDGE / len(labels),
        )

    def value_and_gradient(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        members = len(self.centred)
        slopes, biases = x[:members], x[members:]
        # einsum and not a product by BLAS, whose sums depend on the number of threads.
        eta = np.einsum("m,mnt->nt", slopes, self.centred) + biases
        losses, residuals = log_losses(eta, self.labels)
        by_eta = self.weights * residuals
        off_prior, off_one = biases - self.prior, slopes.sum() - 1
        # Slopes are pulled to a sum of 1 (the members as they are) and to each other.
        apart = slopes - slopes.mean()
        penalty = (self.bias_ridge * off_prior**2).sum() + self.slope_ridge * (off_one**2 + (apart**2).sum())
        by_slopes = np.einsum("mnt,nt->m", self.centred, by_eta) + self.slope_ridge * (off_one + apart)
        by_biases = by_eta.sum(axis=0) + self.bias_ridge * off_prior
        return float((self.weights * losses).sum() + penalty / 2), np.concatenate([by_slopes, by_biases])
