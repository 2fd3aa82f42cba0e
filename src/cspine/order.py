"""Levels in their order: a conditional random field over the slices of a study, along z in mm.

A slice's state is the run of levels on it, at most three (none, C3, C3 and C4, ...), or the gap between two. Seen from
cranial to caudal a neck passes through the states in order, and stays in each for a length that is known from masks: so
the chain is a semi-Markov process in z. Its lengths are Erlang distributed (each state is a row of equal phases, left
one after the other), which makes it a Markov process whose transitions over any distance are a matrix exponential: the
spacing of the slices does not matter. Unaries are stage 1's probabilities. Marginals by forward-backward, the best path
by Viterbi's recursion: Rabiner, A tutorial on hidden Markov models, Proc. IEEE 77(2), 1989. Phase types: Neuts,
Matrix-geometric solutions in stochastic models, 1981.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numba import njit
from scipy.linalg import expm

from cspine.anatomy import LEVELS

MOST_AT_ONCE = 3
# (first level, last level); last = first - 1 is the gap above `first`, so (0, -1) lies above C1 and (7, 6) below C7.
STATES = tuple(
    (first, last)
    for first in range(len(LEVELS) + 1)
    for last in range(first - 1, min(first + MOST_AT_ONCE, len(LEVELS)))
)
PRESENT = np.array([[first <= level <= last for level in range(len(LEVELS))] for first, last in STATES])
MOST_PHASES = 6
USUAL_MM = 4.0  # length of a state that no mask shows
# A scan may begin anywhere in the head, so no mask shows how long it stays above C1. But a scan of the neck hardly ends
# above C1 or begins below C7.
ABOVE_MM, HARDLY = 120.0, 1e-4
SCALES = (0.86, 1.0, 1.16)  # patients are smaller or larger than the mean of the masks
# Of 0, 0.5 and 1 the best on the demo's out-of-fold rows, as were 12 mm of evidence (config.py) of 1, 3, 6 and 12.
RATE_SHARE = 0.5
CLIP = 0.01  # no slice is surer than this
STEP_MM = 0.05  # distances are rounded to it


@dataclass(frozen=True)
class Order:
    """What masks say of the chain: mean length in mm and phases of each state, where it leads, starts and ends.

    Arrays (states,), but `jumps` (states, states), rows that sum to 1 (0 for the last state, which none leaves), and
    `rate` (7,), the share of slices that shows each level.
    """

    mean_mm: np.ndarray
    phases: np.ndarray
    jumps: np.ndarray
    start: np.ndarray
    end: np.ndarray
    rate: np.ndarray

    @cached_property
    def state_of_phase(self) -> np.ndarray:
        return np.repeat(np.arange(len(STATES)), self.phases)

    def generator(self, scale: float) -> np.ndarray:
        """Rates per mm between phases, (phases, phases); patients larger by `scale` stay longer."""
        first = np.concatenate([[0], np.cumsum(self.phases)])
        rates = np.zeros((first[-1], first[-1]))
        for state, count in enumerate(self.phases):
            rate = count / (self.mean_mm[state] * scale)
            last = first[state + 1] - 1
            for phase in range(first[state], last):
                rates[phase, phase + 1] = rate
            rates[last, first[:-1]] += rate * self.jumps[state]
        rates[np.diag_indices_from(rates)] = 0.0
        np.fill_diagonal(rates, -rates.sum(1))
        return rates

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name).tolist() for name in ("mean_mm", "phases", "jumps", "start", "end", "rate")}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Order":
        return cls(**{name: np.array(value, int if name == "phases" else float) for name, value in values.items()})


def fit_order(presences: Sequence[np.ndarray], z_mm: Sequence[np.ndarray]) -> Order:
    """The chain of studies with masks: presence bool (n, 7) and places (n,) of each, cranial to caudal."""
    lengths: list[list[float]] = [[] for _ in STATES]
    jumps, start, end = _usual_jumps(), np.full(len(STATES), 1.0), np.full(len(STATES), 1.0)
    start[-1] = end[0] = HARDLY
    for presence, places in zip(presences, z_mm, strict=True):
        runs = list(_runs(presence, places))
        start[runs[0][0]] += 1
        end[runs[-1][0]] += 1
        for number, (state, length, _) in enumerate(runs):
            before = runs[number - 1][0] if number else state
            if before != state and _follows(STATES[before], STATES[state]):
                jumps[before, state] += 1
            if 0 < number < len(runs) - 1:
                lengths[state].append(length)
    mean = np.array([(sum(found) + USUAL_MM) / (len(found) + 1) for found in lengths])
    mean[0] = ABOVE_MM
    phases = np.array([_phases(found) for found in lengths])
    total = jumps.sum(1, keepdims=True)
    jumps = np.divide(jumps, total, out=np.zeros_like(jumps), where=total > 0)
    rate = np.clip(np.concatenate(presences).mean(0), CLIP, 0.5)
    return Order(mean, phases, jumps, start / start.sum(), end / end.sum(), rate)


def in_order(order: Order, probabilities: np.ndarray, z_mm: np.ndarray, evidence_mm: float) -> np.ndarray:
    """Marginal probabilities (n, 7) that a level is on a slice, given stage 1's (n, 7) on all slices of the study.

    Slices nearer to each other than `evidence_mm` see the same tissue and count less.
    """
    return (_posterior(order, probabilities, z_mm, evidence_mm) @ PRESENT).astype(np.float32)


def best_path(order: Order, probabilities: np.ndarray, z_mm: np.ndarray, evidence_mm: float) -> np.ndarray:
    """The course of the study as presence, bool (n, 7): each level one run of slices, all in their order.

    Of all paths that never go back up it is the one with most slices expected right, by Viterbi's recursion over the
    marginals: a single path through the phases would be judged by the chance of its phases too, which mean nothing.
    """
    posterior = _posterior(order, probabilities, z_mm, evidence_mm)
    blocked = np.array([[0.0 if _follows(one, other) else -np.inf for other in STATES] for one in STATES])
    best, back = posterior[0], np.zeros(posterior.shape, int)
    for i in range(1, len(posterior)):
        reached = best[:, None] + blocked
        back[i] = reached.argmax(0)
        best = reached.max(0) + posterior[i]
    path = [int(best.argmax())]
    for row in back[:0:-1]:
        path.append(int(row[path[-1]]))
    return PRESENT[path[::-1]]


def _posterior(order: Order, probabilities: np.ndarray, z_mm: np.ndarray, evidence_mm: float) -> np.ndarray:
    """Probability of each state on each slice, (n, states).

    The patient's size is averaged out: each of SCALES weighs by how well it explains the study.
    """
    unary = _unary(order, probabilities, z_mm, evidence_mm)[:, order.state_of_phase]
    of_state = np.eye(len(STATES))[order.state_of_phase]
    start = (order.start / order.phases)[order.state_of_phase]
    end = order.end[order.state_of_phase]
    found = [_forward_backward(unary, steps, which, start, end) for steps, which in _transitions(order, z_mm)]
    fit = np.array([likelihood for _, likelihood in found])
    share = np.exp(fit - fit.max()) / np.exp(fit - fit.max()).sum()
    return np.clip(sum(part * posterior for part, (posterior, _) in zip(share, found, strict=True)) @ of_state, 0, 1)


def _unary(order: Order, probabilities: np.ndarray, z_mm: np.ndarray, evidence_mm: float) -> np.ndarray:
    """Log-evidence (n, states) of each slice for each state.

    A likelihood from a classifier is its probability over the class's rate (Bourlard and Morgan, Connectionist speech
    recognition, 1994): so a model that is unsure on new data is still heard. RATE_SHARE of that way is gone.
    """
    p = np.clip(probabilities.astype(float), CLIP, 1 - CLIP)
    weight = np.minimum(1.0, abs(np.gradient(z_mm)) / evidence_mm) if len(z_mm) > 1 else np.ones(1)
    present = PRESENT.astype(float)
    odds = (order.rate / (1 - order.rate)) ** RATE_SHARE
    seen, unseen = np.log(p) - np.log(odds), np.log1p(-p)
    return (seen @ present.T + unseen @ (1 - present).T) * weight[:, None]


def _transitions(order: Order, z_mm: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each size of patient the distinct transition matrices, and which of them leads to each later slice."""
    steps_mm, which = np.unique(np.rint(-np.diff(z_mm) / STEP_MM).astype(int), return_inverse=True)
    for scale in SCALES:
        generator = order.generator(scale)
        matrices = [np.maximum(expm(generator * step * STEP_MM), 0.0) for step in steps_mm]
        yield np.array(matrices).reshape(-1, *generator.shape), which


def _runs(presence: np.ndarray, z_mm: np.ndarray) -> Iterator[tuple[int, float, float]]:
    """State, length in mm and top of each run of equal states; a slice reaches half-way to its neighbours."""
    states = np.array([STATES.index(state) for state in _states(presence)])
    edges = np.concatenate([[z_mm[0]], (z_mm[1:] + z_mm[:-1]) / 2, [z_mm[-1]]])
    starts = np.flatnonzero(np.concatenate([[True], states[1:] != states[:-1]]))
    for begin, end in zip(starts, [*starts[1:], len(states)], strict=True):
        yield int(states[begin]), float(edges[begin] - edges[end]), float(edges[begin])


def _states(presence: np.ndarray) -> list[tuple[int, int]]:
    """The state of each slice of a mask; a slice without a level lies above the next level that is seen."""
    found: list[tuple[int, int]] = []
    following = len(LEVELS)
    if presence.any():
        following = int(np.flatnonzero(presence.any(0))[-1]) + 1
    for row in presence[::-1]:
        if row.any():
            first, last = int(row.argmax()), int(len(row) - 1 - row[::-1].argmax())
            found.append((first, min(last, first + MOST_AT_ONCE - 1)))
            following = first
        else:
            found.append((following, following - 1))
    return found[::-1]


def _follows(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether a state can come after another, going down: neither end of the run goes back up."""
    return other[0] >= one[0] and other[1] >= one[1]


def _usual_jumps() -> np.ndarray:
    """A little weight on what anatomy allows: the next level comes in, or the uppermost goes out."""
    jumps = np.zeros((len(STATES), len(STATES)))
    for index, (first, last) in enumerate(STATES):
        for following in ((first, last + 1), (first + 1, last)):
            if following in STATES:
                jumps[index, STATES.index(following)] = 0.25
    return jumps


def _phases(lengths_mm: list[float]) -> int:
    """The number of Erlang phases whose spread is that of the lengths (method of moments)."""
    if len(lengths_mm) < 4:
        return 1
    spread = max(float(np.var(lengths_mm)), 0.3)
    return int(np.clip(round(float(np.mean(lengths_mm)) ** 2 / spread), 1, MOST_PHASES))


@njit(cache=True)
def _forward_backward(unary, steps, which, start, end):
    """Posterior (n, phases) and the log-likelihood of the slices; `end` weighs the phases on the last slice."""
    n, count = unary.shape
    forward, backward = np.empty((n, count)), np.empty((n, count))
    backward[n - 1] = end
    total = 0.0
    for i in range(n):
        prior = start if i == 0 else forward[i - 1] @ steps[which[i - 1]]
        top = unary[i].max()
        forward[i] = prior * np.exp(unary[i] - top)
        mass = forward[i].sum()
        forward[i] /= mass
        total += np.log(mass) + top
    total += np.log((forward[n - 1] * end).sum())
    for i in range(n - 2, -1, -1):
        backward[i] = steps[which[i]] @ (np.exp(unary[i + 1] - unary[i + 1].max()) * backward[i + 1])
        backward[i] /= backward[i].max()
    posterior = forward * backward
    for i in range(n):
        posterior[i] /= posterior[i].sum()
    return posterior, total
