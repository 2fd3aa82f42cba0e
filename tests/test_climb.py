"""Hill climbing against the same done slowly, one member and one number at a time."""

import math

import numpy as np
import pytest
from simulated_runs import random_labels, random_predictions

from cspine.blend import fit_blend, mean_blend
from cspine.climb import PATIENCE, STEPS, climb_blend
from cspine.metrics import weighted_log_loss

LABELS = random_labels(90)
STACK = np.stack([random_predictions(LABELS, skill, seed) for seed, skill in enumerate((0.9, 0.6, 0.8, -0.5))])


def slowly(members: np.ndarray, labels: np.ndarray) -> list[int]:
    """How often each member is taken, trying every one in every step by the metric itself."""
    logits = []
    for member in members:
        alone = fit_blend(member[None], labels).apply([member])
        logits.append(np.log(alone) - np.log1p(-alone))
    taken: list[int] = []
    best, best_taken = math.inf, []
    for _ in range(STEPS):
        losses = []
        for member in range(len(members)):
            mean = np.mean([logits[place] for place in [*taken, member]], axis=0)
            losses.append(weighted_log_loss(labels, 1 / (1 + np.exp(-mean)), "column", clip=1e-300))
        taken.append(int(np.argmin(losses)))
        if min(losses) < best:
            best, best_taken = min(losses), taken.copy()
        elif len(taken) - len(best_taken) == PATIENCE:
            break
    return [best_taken.count(member) for member in range(len(members))]


@pytest.mark.parametrize("members", [[0, 1, 2, 3], [2, 1], [3]])
def test_it_takes_whom_a_slow_search_takes(members: list[int]) -> None:
    stack = STACK[members]
    counts = np.array(slowly(stack, LABELS))
    shares = counts * [fit_blend(member[None], LABELS).scale for member in stack]
    assert climb_blend(stack, LABELS).weights == pytest.approx(shares / shares.sum())


@pytest.mark.parametrize(("studies", "skill", "seed"), [(26, 0.5, 1), (27, 1.2, 2), (30, 1.2, 5), (31, 0.2, 6)])
def test_the_bound_leaves_out_nobody_who_is_better(studies: int, skill: float, seed: int) -> None:
    """Tables on which the first by the bound is not always the best: taking it blindly ends elsewhere."""
    labels = random_labels(studies, seed)
    stack = np.stack([random_predictions(labels, skill, 100 * seed + member) for member in range(6)])
    counts = np.array(slowly(stack, labels))
    shares = counts * [fit_blend(member[None], labels).scale for member in stack]
    assert climb_blend(stack, labels).weights == pytest.approx(shares / shares.sum())


def test_it_is_a_blend_of_the_better_ones() -> None:
    climbed = climb_blend(STACK, LABELS, ["a", "b", "c", "backwards"])
    assert climbed.members[-1] == "backwards"
    assert climbed.weights[-1] == 0
    assert sum(climbed.weights) == pytest.approx(1)
    losses = [
        weighted_log_loss(LABELS, blend.apply(list(STACK)), "column")
        for blend in (climbed, mean_blend(STACK, LABELS), fit_blend(STACK[:1], LABELS[:]))
        if len(blend.members) == 4
    ]
    assert losses[0] < losses[1]


def test_certain_mistakes_are_no_trouble() -> None:
    certain = np.where(np.arange(90)[:, None] % 2, LABELS, 1 - LABELS).astype(float)
    blend = climb_blend(np.stack([certain, STACK[0]]), LABELS)
    assert np.isfinite(blend.apply([certain, STACK[0]])).all()
