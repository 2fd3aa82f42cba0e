"""The competition's weighted log loss in its three normalisations, and the measures of decisions.

Arrays of targets are (studies, 8) in the order of anatomy.TARGETS.
"""

from typing import Literal

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

from cspine.anatomy import COLUMN_WEIGHTS, NEGATIVE_WEIGHTS, POSITIVE_WEIGHTS

Normalisation = Literal["row", "global", "column"]
NORMALISATIONS: tuple[Normalisation, ...] = ("row", "global", "column")
# Keeps the loss of a certain but wrong prediction finite (13.8); the platform's own bound is not published.
CLIP = 1e-6


def weighted_log_loss(
    labels: np.ndarray, probabilities: np.ndarray, normalisation: Normalisation, clip: float = CLIP
) -> float:
    """The mean of L = -w (y ln p + (1-y) ln(1-p)), for labels and probabilities (n, 8).

    row: sum_j L / sum_j w of each study, then the mean; global: sum_ij L / sum_ij w; column: sum_i L / sum_i w of each
    target, then their mean weighted 7 for the patient and 1 for a level. Probabilities are clipped to [clip, 1 - clip].
    Raises ValueError for NaN, values outside [0, 1], labels other than 0 and 1, and for no studies.
    """
    if normalisation == "row":
        return float(study_losses(labels, probabilities, clip).mean())
    if normalisation == "column":
        return float(np.average(target_losses(labels, probabilities, clip), weights=COLUMN_WEIGHTS))
    if normalisation == "global":
        losses, weights = loss_terms(labels, probabilities, clip)
        return float(losses.sum() / weights.sum())
    raise ValueError(f"normalisation {normalisation!r} is none of {', '.join(NORMALISATIONS)}")


def study_losses(labels: np.ndarray, probabilities: np.ndarray, clip: float = CLIP) -> np.ndarray:
    """sum_j L / sum_j w of each study, (n,): what the `row` loss is the mean of."""
    losses, weights = loss_terms(labels, probabilities, clip)
    return losses.sum(axis=1) / weights.sum(axis=1)


def target_losses(labels: np.ndarray, probabilities: np.ndarray, clip: float = CLIP) -> np.ndarray:
    """The eight columns of the `column` loss before their weighted mean, (8,)."""
    losses, weights = loss_terms(labels, probabilities, clip)
    return losses.sum(axis=0) / weights.sum(axis=0)


def loss_terms(labels: np.ndarray, probabilities: np.ndarray, clip: float = CLIP) -> tuple[np.ndarray, np.ndarray]:
    """L and w of every study and target, (n, 8) each. Raises ValueError as `weighted_log_loss` does."""
    labels, probabilities = _verified(labels, probabilities)
    weights = loss_weights(labels)
    clipped = np.clip(probabilities, clip, 1 - clip)
    return -weights * (labels * np.log(clipped) + (1 - labels) * np.log1p(-clipped)), weights


def loss_weights(labels: np.ndarray) -> np.ndarray:
    """The metric's weight of every label, (n, 8)."""
    return np.where(labels == 1, POSITIVE_WEIGHTS, NEGATIVE_WEIGHTS)


def column_weights(labels: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Weights (n, 8) with which the cross entropy, summed over targets, is in the mean over studies the `column` loss.

    So it is in the mean over batches of them, however small. `counted`, bool (n, 8), leaves labels out.
    """
    weights = loss_weights(labels) * counted
    mean = weights.sum(axis=0) / max(1, len(weights))
    shares = np.array(COLUMN_WEIGHTS) / sum(COLUMN_WEIGHTS)
    return shares * weights / np.where(mean > 0, mean, 1.0)


def even_weights(truth: np.ndarray, counted: np.ndarray, positive_weight: float) -> np.ndarray:
    """`counted` on the scale on which a positive counting `positive_weight` times makes the mean of the weights 1.

    With these the mean over any batches of samples, or over processes, is that over all of them. All arrays alike.
    """
    mean = float(np.mean(counted * (1 + (positive_weight - 1) * truth))) if np.size(counted) else 0.0
    return counted / mean if mean else np.zeros(np.shape(counted))


def study_weights(labels: np.ndarray, judged: np.ndarray, positive_weight: float) -> np.ndarray:
    """`even_weights` (n, 8) of labels (n, 8): the patients' among themselves, and those of the levels judged (n, 7)."""
    patients = even_weights(labels[:, :1], np.ones((len(labels), 1)), positive_weight)
    return np.hstack([patients, even_weights(labels[:, 1:], np.asarray(judged, float), positive_weight)])


def auc(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """The area under the ROC curve; None where only one class is present."""
    return float(roc_auc_score(labels, scores)) if len(np.unique(labels)) > 1 else None


def auc_interval(labels: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of an AUC by DeLong et al. (Biometrics 44, 1988); both classes must be present."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    ranks = rankdata(np.concatenate([positive, negative]))
    # For each study the share of the other class that is on its right side.
    above = (ranks[: len(positive)] - rankdata(positive)) / len(negative)
    below = 1 - (ranks[len(positive) :] - rankdata(negative)) / len(positive)
    deviation = np.sqrt(above.var(ddof=1) / len(positive) + below.var(ddof=1) / len(negative))
    return float(above.mean() - 1.96 * deviation), float(above.mean() + 1.96 * deviation)


def f1(labels: np.ndarray, decisions: np.ndarray) -> float:
    """2 TP / (2 TP + FP + FN) over all elements; 0 where there is nothing to find and nothing was found."""
    positive, decided = np.asarray(labels, bool), np.asarray(decisions, bool)
    either = int(positive.sum() + decided.sum())
    return 2 * int((positive & decided).sum()) / either if either else 0.0


def accuracy(labels: np.ndarray, decisions: np.ndarray) -> float:
    return float((np.asarray(labels, bool) == np.asarray(decisions, bool)).mean())


def sensitivity(labels: np.ndarray, decisions: np.ndarray) -> float | None:
    """The share of the positives that are found; None without positives."""
    found = np.asarray(decisions, bool)[np.asarray(labels, bool)]
    return float(found.mean()) if found.size else None


def specificity(labels: np.ndarray, decisions: np.ndarray) -> float | None:
    """The share of the negatives that are left alone; None without negatives."""
    return sensitivity(~np.asarray(labels, bool), ~np.asarray(decisions, bool))


def _verified(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # One layout in memory, because it decides the order in which numpy sums, and with it the last bit.
    labels, probabilities = np.ascontiguousarray(labels, float), np.ascontiguousarray(probabilities, float)
    if labels.ndim != 2 or labels.shape[1] != len(COLUMN_WEIGHTS) or labels.shape != probabilities.shape:
        raise ValueError(f"labels {labels.shape} and probabilities {probabilities.shape} must both be (n, 8)")
    if not len(labels):
        raise ValueError("there is no study to score")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels must be 0 or 1")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError("probabilities must lie in [0, 1]")
    return labels, probabilities
