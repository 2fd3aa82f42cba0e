"""Ways to blend runs, held against each other by nested folds, and the choice among those that the kernel can run."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

import numpy as np

from cspine.anatomy import COLUMN_WEIGHTS
from cspine.blend import Blend, fit_blend, mean_blend
from cspine.climb import climb_blend
from cspine.metrics import loss_terms
from cspine.refine import fit_by_target, fit_stacker


class Fitted(Protocol):
    """What was fitted: from one array (n, 8) of probabilities a member to the blended ones (n, 8)."""

    def apply(self, predictions: Sequence[np.ndarray]) -> np.ndarray: ...


@dataclass(frozen=True)
class Ranks:
    """The mean of each member's ranks among the studies fitted on, (members, n, 8) in ascending order; calibrated."""

    known: np.ndarray
    blend: Blend

    @classmethod
    def fit(cls, members: np.ndarray, labels: np.ndarray) -> "Ranks":
        known = np.sort(members, axis=1)
        return cls(known, fit_blend(_mean_rank(known, members)[None], labels))

    def apply(self, predictions: Sequence[np.ndarray]) -> np.ndarray:
        return self.blend.apply([_mean_rank(self.known, np.stack(predictions))])


def _mean_rank(known: np.ndarray, members: np.ndarray) -> np.ndarray:
    """(n, 8) strictly within 0 and 1; among equals the middle of their ranks."""
    total = np.zeros_like(members[0])
    for sorted_ones, asked in zip(known, members, strict=True):
        for target in range(total.shape[1]):
            column, values = sorted_ones[:, target], asked[:, target]
            total[:, target] += np.searchsorted(column, values) + np.searchsorted(column, values, "right")
    return (total / len(members) + 1) / (2 * known.shape[1] + 2)


BLENDS: dict[str, Callable[[np.ndarray, np.ndarray, Sequence[str]], Blend]] = {
    "plain mean": mean_blend,
    "hill climbing": climb_blend,
    "fitted weights": fit_blend,
}
# The kernel cannot run these: they show what is given away.
OTHERS: dict[str, Callable[[np.ndarray, np.ndarray], Fitted]] = {
    "rank mean": Ranks.fit,
    "weights by target": fit_by_target,
    "stacker": fit_stacker,
}
# Kept unless another is surely better. Its weights are pulled to equal ones, so it is never far from the plain mean.
INCUMBENT = "fitted weights"
SURE = 1.96  # standard errors
THREADS = 2


@dataclass(frozen=True)
class Comparison:
    """Each way's predictions (n, 8), in-sample and nested, and what the rule chose."""

    in_sample: dict[str, np.ndarray]
    nested: dict[str, np.ndarray]
    blend: Blend  # of the way chosen, fitted on all rows
    way: str
    picks: dict[int, str]  # fold -> the way chosen without it
    chosen: np.ndarray  # (n, 8) each fold predicted by the way chosen and fitted without it


def lead(labels: np.ndarray, one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """By how much the column loss of `one` (n, 8) lies below that of `other`: as it is, and in standard errors.

    The error is that of a mean over studies of what each adds to the difference of two ratios (the delta method).
    """
    (losses, weights), (others, _) = loss_terms(labels, one), loss_terms(labels, other)
    ahead = (others - losses).mean(axis=0) / weights.mean(axis=0)
    added = (others - losses - ahead * weights) / weights.mean(axis=0)
    error = np.average(added, axis=1, weights=COLUMN_WEIGHTS).std() / np.sqrt(len(labels))
    value = float(np.average(ahead, weights=COLUMN_WEIGHTS))
    return value, value / float(error) if error > 0 else 0.0


def compare_ways(
    members: np.ndarray, labels: np.ndarray, folds: np.ndarray, names: Sequence[str], threads: int = THREADS
) -> Comparison:
    """Fit every way on all rows and without each fold, and choose one of BLENDS.

    The rule: INCUMBENT, unless another's nested column loss is lower by more than SURE standard errors; taking the
    lowest without that loses on few studies, where the ways differ by chance. The rule's own score is honest because
    it is applied within each fold's others: there every way is fitted without two folds and judged on the second, and
    the winner predicts the first. With two folds, or one member, there is nothing to choose by.
    """
    known = [int(fold) for fold in np.unique(folds)]
    if len(known) < 2:
        raise ValueError("nested predictions need at least two folds")
    blends = BLENDS if len(members) > 1 else {INCUMBENT: BLENDS[INCUMBENT]}
    others = OTHERS if len(members) > 1 else {}

    undecided = len(known) < 3 or len(blends) < 2

    def fit(task: tuple[str, tuple[int, ...]]) -> Fitted:
        way, without = task
        rows = ~np.isin(folds, without)
        if way in blends:
            return blends[way](members[:, rows], labels[rows], names)
        return others[way](members[:, rows], labels[rows])

    # The folds that a fit goes without: none, one, or, of what can be chosen, two.
    tasks = [(way, without) for way in (*blends, *others) for without in ((), *((fold,) for fold in known))]
    if not undecided:
        tasks += [(way, pair) for way in blends for pair in combinations(known, 2)]
    # Threads, because NumPy and numba leave the interpreter to others; no fit depends on another.
    with ThreadPoolExecutor(threads) as pool:
        fits = dict(zip(tasks, pool.map(fit, tasks), strict=True))

    def held_out(way: str, without: int | None = None) -> np.ndarray:
        """Each fold but `without` predicted by what was fitted on neither; that fold's rows are 0."""
        made = np.zeros(labels.shape)
        for fold in known:
            if fold != without:
                left_out = (fold,) if without is None else (min(fold, without), max(fold, without))
                made[folds == fold] = fits[way, left_out].apply(list(members[:, folds == fold]))
        return made

    def best(without: int | None = None) -> str:
        if undecided:
            return INCUMBENT
        seen = folds != without if without is not None else np.ones(len(labels), bool)
        made = {way: held_out(way, without)[seen] for way in blends}
        ahead = {way: lead(labels[seen], made[way], made[INCUMBENT]) for way in blends if way != INCUMBENT}
        return next((way for way in sorted(ahead, key=lambda way: -ahead[way][0]) if ahead[way][1] > SURE), INCUMBENT)

    nested = {way: held_out(way) for way in (*blends, *others)}
    picks = {fold: best(fold) for fold in known}
    way = best()
    blend = fits[way, ()]
    assert isinstance(blend, Blend)
    return Comparison(
        in_sample={name: fits[name, ()].apply(list(members)) for name in nested},
        nested=nested,
        blend=blend,
        way=way,
        picks=picks,
        chosen=np.select([(folds == fold)[:, None] for fold in known], [nested[picks[fold]] for fold in known]),
    )
