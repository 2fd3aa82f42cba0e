"""Hill climbing with replacement: the blend made by adding one member at a time, whichever lowers the loss most.

Caruana et al., Ensemble selection from libraries of models (ICML 2004). A member added twice weighs twice.
"""

from collections.abc import Sequence

import numpy as np
from numba import njit

from cspine.blend import Blend, fit_blend, mean_blend
from cspine.metrics import column_weights

STEPS = 60  # members added at most, and so the finest weight is 1/60
PATIENCE = 10  # steps without a lower loss after which it ends
LARGEST = 200.0  # exp() of more is left as it is: ln(1 + e^x) = x


def climb_blend(members: np.ndarray, labels: np.ndarray, names: Sequence[str] | None = None) -> Blend:
    """The blend of probabilities (members, n, 8) by hill climbing on the column loss of labels (n, 8).

    Each member is calibrated alone, so that one that is well ordered but off in scale can be chosen; what was climbed
    to is calibrated again.
    """
    alone = [fit_blend(member[None], labels) for member in members]
    calibrated = np.stack([own.calibrated_logits([member]) for own, member in zip(alone, members, strict=True)])
    weights = column_weights(np.asarray(labels), np.ones(np.shape(labels), bool)) / len(labels)
    # Positives first in every target, and signed so that a greater number is a greater mistake.
    signed = np.where(np.asarray(labels) == 1, -calibrated, calibrated).transpose(0, 2, 1)
    order = np.argsort(-np.asarray(labels).T, axis=1, kind="stable")
    mistakes = np.ascontiguousarray(np.take_along_axis(signed, order[None], axis=2))
    counts = _climb(mistakes, np.take_along_axis(weights.T, order, axis=1))
    shares = counts * np.array([own.scale for own in alone])
    return mean_blend(members, labels, names, shares / shares.sum())


@njit(cache=True, nogil=True)
def _climb(mistakes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """How often each member of signed logits (m, 8, n) is taken where the loss was lowest; among equals the first.

    The loss is convex, so its tangent is a lower bound: a member whose bound lies above the best one is not tried.
    """
    members = len(mistakes)
    total, counts = np.zeros(mistakes.shape[1:]), np.zeros(members)
    best, best_counts, since = np.inf, np.ones(members), 0
    for step in range(1, STEPS + 1):
        current = total / max(step - 1, 1)
        slope = weights / (1.0 + np.exp(-current))
        here, along = _loss(current, weights), _dot(slope, current)
        bounds = np.array([here + (_dot(slope, mistakes[member]) - along) / step for member in range(members)])
        chosen, lowest = 0, np.inf
        for member in np.argsort(bounds, kind="mergesort"):
            # A hair of slack, because a bound is rounded as well.
            if bounds[member] > lowest + 1e-12:
                break
            loss = _loss((total + mistakes[member]) / step, weights)
            if loss < lowest or (loss == lowest and member < chosen):
                chosen, lowest = member, loss
        total += mistakes[chosen]
        counts[chosen] += 1
        if lowest < best:
            best, best_counts, since = lowest, counts.copy(), 0
        else:
            since += 1
            if since == PATIENCE:
                break
    return best_counts


@njit(cache=True, nogil=True)
def _loss(mistakes: np.ndarray, weights: np.ndarray) -> float:
    """The column loss, sum of weights * ln(1 + exp(mistakes)) over (8, n).

    Neighbours mostly weigh the same, and the product of their factors needs but one logarithm.
    """
    loss = 0.0
    for target in range(mistakes.shape[0]):
        product, weight = 1.0, weights[target, 0]
        for study in range(mistakes.shape[1]):
            if weights[target, study] != weight or product > 1e200:
                loss += weight * np.log(product)
                product, weight = 1.0, weights[target, study]
            mistake = mistakes[target, study]
            if mistake > LARGEST:
                loss += weight * mistake
            else:
                product *= 1.0 + np.exp(mistake)
        loss += weight * np.log(product)
    return loss


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _dot(one: np.ndarray, other: np.ndarray) -> float:
    total = 0.0
    for target in range(one.shape[0]):
        for study in range(one.shape[1]):
            total += one[target, study] * other[target, study]
    return total
