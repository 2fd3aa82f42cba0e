"""What a blend could gain from more freedom than the kernel's has: own weights a target, and a stacker over levels.

Both start from the fitted blend and are pulled back to it, so that they can hardly be worse than it on few studies.
They are there for comparison: the kernel runs blends alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from cspine.blend import Blend, fit_blend
from cspine.calibrate import LEAST_SLOPE, log_losses, logits
from cspine.metrics import column_weights

# The pull back to the fitted blend, in studies. On simulated tables of 200 and 600 studies a tenth of it made weights
# by target worse than shared ones by 0.003 to 0.005; five times as much takes from the stacker part of what it gains.
RIDGE = 10.0


@dataclass(frozen=True)
class ByTarget:
    """Weights of their own for every target: slopes (8, members) and biases (8,)."""

    slopes: np.ndarray
    biases: np.ndarray

    def apply(self, predictions: Sequence[np.ndarray]) -> np.ndarray:
        """(n, 8) probabilities from one array (n, 8) a member."""
        return expit(np.einsum("tm,mnt->nt", self.slopes, logits(np.stack(predictions))) + self.biases)


@dataclass(frozen=True)
class Stacker:
    """Corrections to a blend's logits from the patient's members, the neighbouring levels and all levels together."""

    blend: Blend
    centres: np.ndarray  # (features, 8)
    steps: np.ndarray  # (features,)
    biases: np.ndarray  # (8,)

    def apply(self, predictions: Sequence[np.ndarray]) -> np.ndarray:
        """(n, 8) probabilities from one array (n, 8) a member."""
        base = self.blend.calibrated_logits(predictions)
        features = _features(base, np.stack(predictions)) - self.centres[:, None]
        return expit(base + np.einsum("k,knt->nt", self.steps, features) + self.biases)


def fit_by_target(members: np.ndarray, labels: np.ndarray) -> ByTarget:
    """Weights a target from probabilities (members, n, 8), pulled to the shared ones; never negative."""
    blend, z = fit_blend(members, labels), logits(members)
    shared = blend.scale * np.asarray(blend.weights)
    base, weights = blend.calibrated_logits(list(members)), _weights(labels)
    slopes, biases = [], []
    for target in range(labels.shape[1]):
        centre = z[:, :, target].mean(axis=1)
        features = np.vstack([z[:, :, target] - centre[:, None], np.ones(len(labels))])
        lower = np.append(LEAST_SLOPE - shared, -np.inf)
        steps = _corrections(features, base[:, target], labels[:, target], weights[:, target], len(labels), lower)
        slopes.append(shared + steps[:-1])
        biases.append(blend.biases[target] + steps[-1] - steps[:-1] @ centre)
    return ByTarget(np.array(slopes), np.array(biases))


def fit_stacker(members: np.ndarray, labels: np.ndarray) -> Stacker:
    """A stacker on probabilities (members, n, 8): levels inform their neighbours and the patient, he informs them."""
    blend = fit_blend(members, labels)
    base = blend.calibrated_logits(list(members))
    features = _features(base, members)
    centres = features.mean(axis=1)
    features = features - centres[:, None]
    targets = np.broadcast_to(np.eye(8)[:, None], (8, *base.shape))
    rows = np.concatenate([features, targets]).reshape(len(features) + 8, -1)
    steps = _corrections(
        rows, base.ravel(), np.ravel(labels), _weights(labels).ravel(), len(labels), np.full(len(rows), -np.inf)
    )
    return Stacker(blend, centres, steps[: len(features)], steps[len(features) :])


def _features(base: np.ndarray, members: np.ndarray) -> np.ndarray:
    """(members + 6, n, 8), 0 where a feature is not for a target: from the blend's logits (n, 8) and the members."""
    none = np.zeros((len(base), 1))
    levels, patient = base[:, 1:], base[:, :1]
    # ln(odds) of "some level is fractured", were they independent: ln(1 - prod(1 - p)) - sum ln(1 - p).
    intact = -np.logaddexp(0, levels).sum(axis=1, keepdims=True)
    union = np.log(-np.expm1(intact)) - intact
    of_levels = [
        np.hstack([none, none, levels[:, :-1]]),  # the level above
        np.hstack([none, levels[:, 1:], none]),  # the level below
        np.hstack([none, levels]),
        np.hstack([none, np.repeat(patient, 7, axis=1)]),
    ]
    of_patient = [union, levels.max(axis=1, keepdims=True), *logits(members)[:, :, :1]]
    return np.stack([*of_levels, *(np.hstack([values, np.repeat(none, 7, axis=1)]) for values in of_patient)])


def _weights(labels: np.ndarray) -> np.ndarray:
    """(n, 8), such that the column loss is their sum with the plain log losses."""
    return column_weights(np.asarray(labels), np.ones(np.shape(labels), bool)) / len(labels)


def _corrections(
    features: np.ndarray, base: np.ndarray, labels: np.ndarray, weights: np.ndarray, studies: int, lower: np.ndarray
) -> np.ndarray:
    """Steps (k,) of features (k, rows), added to the logits `base` (rows,), that minimise the penalised loss."""
    pull = RIDGE / studies * weights.sum() * (features**2).mean(axis=1)

    def value_and_gradient(steps: np.ndarray) -> tuple[float, np.ndarray]:
        eta = base + np.einsum("k,kr->r", steps, features)
        losses, residuals = log_losses(eta, labels)
        value = (weights * losses).sum() + (pull * steps**2).sum() / 2
        return float(value), np.einsum("kr,r->k", features, weights * residuals) + pull * steps

    start = np.maximum(np.zeros(len(features)), lower)
    options = {"maxiter": 500, "ftol": 1e-12, "gtol": 1e-7}
    bounds = [(float(low), None) for low in lower]
    return minimize(value_and_gradient, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
