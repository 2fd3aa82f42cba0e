"""Operating points: where to cut a probability. A case is positive where p >= threshold.

A rule is `f1`, `accuracy` or `youden` (sensitivity + specificity), each at its greatest; `sensitivity:0.95`, the
greatest specificity with at least that sensitivity; `specificity:0.9` the other way round; or `cost:5`, the lowest cost
where a missed fracture costs as much as five false alarms.
"""

import numpy as np
from numba import njit

F1, ACCURACY, YOUDEN, SENSITIVITY, SPECIFICITY, COST = range(6)
CODES = {
    "f1": F1,
    "accuracy": ACCURACY,
    "youden": YOUDEN,
    "sensitivity": SENSITIVITY,
    "specificity": SPECIFICITY,
    "cost": COST,
}
# What reports show beside the rule asked for.
USUAL = ("f1", "accuracy", "youden", "sensitivity:0.95", "specificity:0.9", "cost:5")


def read_rule(rule: str) -> tuple[int, float]:
    """The code and the value of a rule, 0 where it takes none. Raises ValueError for what is no rule."""
    name, colon, text = rule.partition(":")
    takes_value = name in ("sensitivity", "specificity", "cost")
    if name not in CODES or bool(colon) != takes_value:
        raise ValueError(f"{rule!r} is no rule for thresholds; there are {', '.join(USUAL)}, with any number")
    if not takes_value:
        return CODES[name], 0.0
    try:
        value = float(text)
    except ValueError as error:
        raise ValueError(f"{rule!r}: {text!r} is no number") from error
    if not (0 < value < np.inf if name == "cost" else 0 < value <= 1):
        raise ValueError(f"{rule!r}: must be {'above 0' if name == 'cost' else 'above 0 and at most 1'}")
    return CODES[name], value


def usual_rules(asked: str) -> tuple[str, ...]:
    """The usual rules, with the one asked for in the place of its kind."""
    kind = asked.partition(":")[0]
    return tuple(asked if rule.partition(":")[0] == kind else rule for rule in USUAL)


def best_threshold(labels: np.ndarray, probabilities: np.ndarray, rule: str = "f1") -> float:
    """The best of all cuts of the probabilities (n,): halfway between neighbouring distinct ones, below and above all.

    Among equally good cuts the one in the widest gap, which new data disturb least; then the lowest, which finds most.
    Without positives the cut above all. Raises ValueError for no cases, NaN, and an unknown rule.
    """
    code, asked = read_rule(rule)
    scores = np.asarray(probabilities, np.float64)
    if not len(scores) or len(scores) != len(labels) or not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError("a threshold needs as many labels as probabilities, at least one, all within [0, 1]")
    order = np.argsort(-scores, kind="stable")
    return float(_sweep(np.asarray(labels, bool)[order], scores[order], code, asked))


def best_thresholds(labels: np.ndarray, probabilities: np.ndarray, rule: str = "f1") -> np.ndarray:
    """`best_threshold` of every column of (n, targets): (targets,)."""
    columns = zip(np.asarray(labels).T, np.asarray(probabilities).T, strict=True)
    return np.array([best_threshold(truth, scores, rule) for truth, scores in columns])


def nested_thresholds(labels: np.ndarray, probabilities: np.ndarray, folds: np.ndarray, rule: str = "f1") -> np.ndarray:
    """The threshold to hold each element of (n, targets) against, fitted on the other folds; (n, targets)."""
    labels, probabilities, folds = np.asarray(labels), np.asarray(probabilities), np.asarray(folds)
    thresholds = np.empty(probabilities.shape)
    for fold in np.unique(folds):
        others = folds != fold
        thresholds[~others] = best_thresholds(labels[others], probabilities[others], rule)
    return thresholds


@njit(cache=True)
def _sweep(labels: np.ndarray, scores: np.ndarray, code: int, asked: float) -> float:
    """One pass over the scores, in descending order, moving the cut down over each group of equal ones."""
    count, positives = len(labels), labels.sum()
    true_positives, index = 0, 0
    best, best_gap, threshold = -np.inf, -1.0, 0.0
    while True:
        upper = scores[index - 1] if index > 0 else 1.0
        lower = scores[index] if index < count else 0.0
        value = _value(true_positives, index - true_positives, positives, count - positives, code, asked)
        gap = upper - lower
        if value > best or (value == best and gap >= best_gap):
            best, best_gap = value, gap
            threshold = _cut(upper, lower, index == 0)
        if index == count:
            return threshold
        while index < count and scores[index] == lower:
            true_positives += labels[index]
            index += 1


@njit(cache=True)
def _value(tp: int, fp: int, positives: int, negatives: int, code: int, asked: float) -> float:
    """What the rule makes greatest.

    Quotients and products of integers: equal measures are equal floats, so that ties are seen. A class that is not
    there is wholly found and wholly left alone.
    """
    if code == F1:
        either = tp + fp + positives
        return 2 * tp / either if either else 1.0
    if code == ACCURACY:
        return (negatives - fp + tp) / (positives + negatives)
    if code == YOUDEN:
        return float(tp * max(negatives, 1) - fp * max(positives, 1))
    if code == COST:
        return -(asked * (positives - tp) + fp)
    found = tp / positives if positives else 1.0
    left_alone = (negatives - fp) / negatives if negatives else 1.0
    if code == SPECIFICITY:
        found, left_alone = left_alone, found
    # Short of what is asked every cut is worse than any that reaches it, and the nearest is the best.
    return left_alone if found >= asked else found - 2.0


@njit(cache=True)
def _cut(upper: float, lower: float, above_all: bool) -> float:
    """Halfway, yet above `lower` and not above `upper`: between neighbouring floats there is no middle."""
    middle = lower + (upper - lower) / 2
    if middle > lower:
        return middle
    return np.nextafter(1.0, 2.0) if above_all else upper
