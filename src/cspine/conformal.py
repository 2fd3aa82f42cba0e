"""Which cases to refer to a radiologist: sets of answers that hold the truth as often as promised.

Conformal prediction within each class (Vovk, Gammerman and Shafer 2005, Mondrian predictors): "fractured" is among
the answers where p is no lower than all but a share 1 - coverage of the fractured cases seen, "intact" where it is no
higher than all but that share of the intact ones. One answer is an answer; two, or none, are a case for a radiologist.
New cases drawn like those seen are covered with at least that probability in each class, whatever the model is.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from cspine.anatomy import LEVELS, OVERALL, TARGETS
from cspine.scores import number

COVERAGE = 0.9
HEADER = ("", "fractured: covered", "intact: covered", "referred", "right of the others", "fractured from", "intact to")


@dataclass(frozen=True)
class Refer:
    """For each target (8,): "fractured" is possible from `fractured_from` up, "intact" up to `intact_to`."""

    fractured_from: np.ndarray
    intact_to: np.ndarray

    def possible(self, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bool (n, 8) each: is `fractured`, is `intact` among the answers."""
        return probabilities >= self.fractured_from, probabilities <= self.intact_to

    def to_json(self) -> dict[str, Any]:
        """A mapping of targets; a bound is null where too few cases were seen to rule that answer out."""
        pairs = zip(TARGETS, self.fractured_from, self.intact_to, strict=True)
        return {
            target: {"fractured_from": _finite(fractured), "intact_to": _finite(intact)}
            for target, fractured, intact in pairs
        }


def fit_refer(labels: np.ndarray, probabilities: np.ndarray, coverage: float = COVERAGE) -> Refer:
    """Bounds from labels and out-of-fold probabilities (n, 8). Raises ValueError for a coverage not within 0 and 1."""
    if not 0 < coverage < 1:
        raise ValueError(f"coverage {coverage} must lie within 0 and 1")
    lowest, highest = [], []
    for truth, scores in zip(labels.T, probabilities.T, strict=True):
        lowest.append(-_bound(-scores[truth == 1], coverage))
        highest.append(_bound(scores[truth == 0], coverage))
    return Refer(np.array(lowest), np.array(highest))


def _bound(scores: np.ndarray, coverage: float) -> float:
    """The score up to which a new case of these lies with probability `coverage`; infinite where too few were seen."""
    rank = int(np.ceil((len(scores) + 1) * coverage - 1e-9))
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else np.inf


def nested_answers(
    labels: np.ndarray, probabilities: np.ndarray, folds: np.ndarray, coverage: float = COVERAGE
) -> tuple[np.ndarray, np.ndarray]:
    """`possible` of each fold by bounds fitted on the others."""
    fractured, intact = np.empty(labels.shape, bool), np.empty(labels.shape, bool)
    for fold in np.unique(folds):
        here = folds == fold
        refer = fit_refer(labels[~here], probabilities[~here], coverage)
        fractured[here], intact[here] = refer.possible(probabilities[here])
    return fractured, intact


def refer_rows(
    labels: np.ndarray, probabilities: np.ndarray, folds: np.ndarray, coverage: float = COVERAGE
) -> list[list[str]]:
    """The cells under HEADER, a row a target: on held-out folds, and last the bounds fitted on all rows."""
    fractured, intact = nested_answers(labels, probabilities, folds, coverage)
    bounds, rows = fit_refer(labels, probabilities, coverage), []
    for target in (*LEVELS, OVERALL):
        place = TARGETS.index(target)
        truth, yes, no = labels[:, place] == 1, fractured[:, place], intact[:, place]
        answered = yes != no
        shares = (yes[truth], no[~truth], ~answered, (yes == truth)[answered])
        cells = [number(float(share.mean()) if len(share) else None, 3) for share in shares]
        ends = (_finite(bounds.fractured_from[place]), _finite(bounds.intact_to[place]))
        rows.append([target, *cells, *(number(end, 4) for end in ends)])
    return rows


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
