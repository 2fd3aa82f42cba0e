"""The blend of several runs: a convex mean of their logits, then a calibration. Needs no torch; runs on Kaggle."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

from cspine.anatomy import TARGETS
from cspine.calibrate import CLIP, fit_calibration, logits
from cspine.errors import UserError


@dataclass(frozen=True)
class Blend:
    """p_t = sigmoid(scale * sum_m weights_m logit(p_mt) + biases_t); weights sum to 1, biases follow TARGETS."""

    members: tuple[str, ...]
    weights: tuple[float, ...]
    scale: float
    biases: tuple[float, ...]

    def apply(self, predictions: Sequence[np.ndarray]) -> np.ndarray:
        """Blend one (n, 8) array of probabilities a member, in the order of `members`: (n, 8)."""
        return expit(self.calibrated_logits(predictions))

    def calibrated_logits(self, predictions: Sequence[np.ndarray]) -> np.ndarray:
        """The logits of `apply`, (n, 8)."""
        return self.scale * self.mean_logits(predictions) + np.asarray(self.biases)

    def apply_uncalibrated(self, predictions: Sequence[np.ndarray]) -> np.ndarray:
        """The weighted mean alone, without scale and biases: (n, 8)."""
        return expit(self.mean_logits(predictions))

    def mean_logits(self, predictions: Sequence[np.ndarray]) -> np.ndarray:
        if len(predictions) != len(self.members):
            raise ValueError(f"{len(predictions)} predictions for the {len(self.members)} members of the blend")
        # One at a time: a product over the stack would round differently for one study than for many.
        return sum(w * logits(p) for w, p in zip(self.weights, predictions, strict=True))  # type: ignore[return-value]

    def without(self, names: Collection[str]) -> "Blend":
        """The blend of the other members, their weights brought back to a sum of 1; equal ones where they had none.

        Raises ValueError where no other is left.
        """
        kept = {name: w for name, w in zip(self.members, self.weights, strict=True) if name not in names}
        if not kept:
            raise ValueError("no member of the blend is left")
        total = sum(kept.values())
        weights = tuple(w / total if total > 0 else 1 / len(kept) for w in kept.values())
        # Untouched where nothing is left out: a quotient would round.
        return Blend(tuple(kept), weights, self.scale, self.biases) if len(kept) < len(self.members) else self

    def to_json(self) -> dict[str, Any]:
        return {
            "members": list(self.members),
            "weights": list(self.weights),
            "scale": self.scale,
            "biases": dict(zip(TARGETS, self.biases, strict=True)),
            "clip": CLIP,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Blend":
        """The blend in a mapping that may hold more. Raises UserError for one that another version made."""
        try:
            members, weights = tuple(values["members"]), tuple(float(weight) for weight in values["weights"])
            biases = tuple(float(values["biases"][target]) for target in TARGETS)
            blend, clip = cls(members, weights, float(values["scale"]), biases), values["clip"]
        except KeyError as error:
            raise UserError(f"the blend lacks the key {error}; make it again: python src/ensemble.py") from error
        if clip != CLIP or len(members) != len(weights):
            raise UserError("the blend was made by other code than this; make it again: python src/ensemble.py")
        return blend


def fit_blend(members: np.ndarray, labels: np.ndarray, names: Sequence[str] | None = None) -> Blend:
    """Fit weights, scale and biases to labels (n, 8) by the column loss, from probabilities (members, n, 8)."""
    members = np.asarray(members)
    if members.ndim != 3 or members.shape[1:] != np.shape(labels) or not members.size:
        raise ValueError(f"members {members.shape} must be (m, n, 8) and labels {np.shape(labels)} (n, 8)")
    fit = fit_calibration(logits(members), labels)
    scale = float(fit.slopes.sum())
    names = [str(number) for number in range(len(members))] if names is None else names
    weights = tuple(float(slope) / scale for slope in fit.slopes)
    return Blend(tuple(names), weights, scale, tuple(fit.biases.tolist()))


def mean_blend(
    members: np.ndarray, labels: np.ndarray, names: Sequence[str] | None = None, weights: np.ndarray | None = None
) -> Blend:
    """The mean of the members' logits with these weights, which sum to 1 (None: the plain mean), then calibrated."""
    weights = np.full(len(members), 1 / len(members)) if weights is None else weights
    mean = np.einsum("m,mnt->nt", weights, logits(members))
    fit = fit_calibration(mean[None], labels)
    names = [str(number) for number in range(len(members))] if names is None else names
    return Blend(tuple(names), tuple(weights.tolist()), float(fit.slopes[0]), tuple(fit.biases.tolist()))


def nested_blend(members: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Blended probabilities (n, 8) of which each fold's come from a blend fitted on the other folds alone."""
    members, labels, folds = np.asarray(members), np.asarray(labels), np.asarray(folds)
    blended = np.empty(labels.shape)
    for fold in np.unique(folds):
        others = folds != fold
        if not others.any():
            raise ValueError("nested predictions need at least two folds")
        blended[~others] = fit_blend(members[:, others], labels[others]).apply(list(members[:, ~others]))
    return blended
