"""The chain over slices: what it must find again, and that neither spacing nor the path of computing matters."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cspine.anatomy import LEVELS
from cspine.order import PRESENT, STATES, Order, _forward_backward, best_path, fit_order, in_order

PITCH_MM, OVERLAP_MM = 18.0, 5.0
EVIDENCE_MM = 1.0


def neck(rng: np.random.Generator, spacing_mm: float, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Presence (n, 7) and z (n,) of a scan from above C1 to below C7; neighbours share OVERLAP_MM."""
    z = np.arange(170, 0, -spacing_mm)
    tops = 160 - scale * np.cumsum([0, *(PITCH_MM * rng.uniform(0.9, 1.1, 6))])
    bottoms = np.append(tops[1:] - OVERLAP_MM, tops[-1] - PITCH_MM)
    return (z[:, None] <= tops) & (z[:, None] > bottoms), z


@pytest.fixture(scope="module")
def order() -> Order:
    studies = [neck(np.random.default_rng(seed), 1.0) for seed in range(12)]
    return fit_order([presence for presence, _ in studies], [z for _, z in studies])


def blurred(presence: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a weak model says: unsure everywhere, and on a third of the slices the neighbour above."""
    wrong = np.roll(presence, -1, axis=1)
    wrong[:, -1] = False
    mixed = np.where(rng.random(len(presence))[:, None] < 1 / 3, wrong, presence)
    return np.clip(np.where(mixed, 0.7, 0.12) + rng.normal(0, 0.1, presence.shape), 0.02, 0.98)


def test_states_are_runs_of_levels_and_the_gaps_between() -> None:
    assert len(STATES) == len(set(STATES)) == 26
    assert (PRESENT.sum(1) == [last - first + 1 for first, last in STATES]).all()
    assert (0, -1) in STATES
    assert (7, 6) in STATES


def test_lengths_and_jumps_come_from_the_masks(order: Order) -> None:
    alone, both = STATES.index((2, 2)), STATES.index((2, 3))
    assert order.mean_mm[both] == pytest.approx(OVERLAP_MM, abs=0.6)
    assert order.mean_mm[alone] == pytest.approx(PITCH_MM - OVERLAP_MM, abs=1.5)
    assert order.jumps[alone, both] > 0.9
    assert order.start[STATES.index((0, -1))] == order.start.max()
    assert order.phases[alone] > 1
    np.testing.assert_allclose(order.jumps[:-1].sum(1), 1)


def test_it_mends_what_a_weak_model_confuses(order: Order) -> None:
    rng = np.random.default_rng(99)
    presence, z = neck(rng, 1.0)
    raw = blurred(presence, rng)
    mended = in_order(order, raw, z, EVIDENCE_MM)
    assert ((raw > 0.5) == presence).mean() < 0.95
    assert ((mended > 0.5) == presence).mean() > 0.98
    assert (best_path(order, raw, z, EVIDENCE_MM) == presence).mean() > 0.98


def test_a_scan_that_begins_in_the_middle_is_not_forced_to_c1(order: Order) -> None:
    rng = np.random.default_rng(5)
    presence, z = neck(rng, 1.0)
    part = slice(60, 110)
    found = best_path(order, blurred(presence, rng)[part], z[part], EVIDENCE_MM)
    assert (found == presence[part]).mean() > 0.95


def test_a_whole_head_above_the_neck_does_not_hide_it(order: Order) -> None:
    rng = np.random.default_rng(8)
    presence, z = neck(rng, 1.0)
    head = np.zeros((150, 7), bool)
    whole, places = np.concatenate([head, presence]), np.concatenate([z[0] + np.arange(150, 0, -1), z])
    # A weak model: sure of nothing, and where a level is about as likely as not.
    weak = np.clip(np.where(whole, 0.45, 0.08) + rng.normal(0, 0.05, whole.shape), 0.02, 0.98)
    found = best_path(order, weak, places, EVIDENCE_MM)
    assert (found == whole).mean() > 0.97


@pytest.mark.parametrize("spacing_mm", [0.4, 2.5])
def test_spacing_does_not_matter(order: Order, spacing_mm: float) -> None:
    fine, coarse = (neck(np.random.default_rng(3), step) for step in (1.0, spacing_mm))
    extents = []
    for presence, z in (fine, coarse):
        probabilities = np.where(presence, 0.8, 0.2)
        found = best_path(order, probabilities, z, EVIDENCE_MM)
        extents.append([[z[found[:, level]].max(), z[found[:, level]].min()] for level in range(7)])
    np.testing.assert_allclose(extents[0], extents[1], atol=1.0 + spacing_mm)


def test_larger_patients_are_followed(order: Order) -> None:
    rng = np.random.default_rng(1)
    presence, z = neck(rng, 1.0, scale=1.2)
    assert ((in_order(order, blurred(presence, rng), z, EVIDENCE_MM) > 0.5) == presence).mean() > 0.96


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 40), st.floats(0.3, 6.0))
def test_the_best_path_is_always_in_order(seed: int, slices: int, spacing_mm: float) -> None:
    studies = [neck(np.random.default_rng(seed), 2.0) for seed in range(4)]
    chain = fit_order([p for p, _ in studies], [z for _, z in studies])
    noise = np.random.default_rng(seed).random((slices, len(LEVELS)))
    z = -spacing_mm * np.arange(slices)
    path = best_path(chain, noise, z, EVIDENCE_MM)
    seen = [np.flatnonzero(path[:, level]) for level in range(len(LEVELS))]
    present = [rows for rows in seen if len(rows)]
    assert all((np.diff(rows) == 1).all() for rows in present), "a level has a gap"
    assert all(a[0] <= b[0] and a[-1] <= b[-1] for a, b in itertools.pairwise(present))
    marginals = in_order(chain, noise, z, EVIDENCE_MM)
    assert ((marginals >= 0) & (marginals <= 1)).all()


def test_marginals_and_likelihood_equal_the_sum_over_all_paths() -> None:
    rng = np.random.default_rng(0)
    steps = rng.random((2, 3, 3))
    steps /= steps.sum(2, keepdims=True)
    unary, start, which = rng.normal(size=(4, 3)), np.array([0.5, 0.3, 0.2]), np.array([0, 1, 0])
    end, mass = np.array([0.1, 1.0, 0.4]), np.zeros((4, 3))
    for path in itertools.product(range(3), repeat=4):
        weight = start[path[0]] * np.prod([steps[which[i], path[i], path[i + 1]] for i in range(3)])
        weight *= np.exp(sum(unary[i, path[i]] for i in range(4))) * end[path[3]]
        for i in range(4):
            mass[i, path[i]] += weight
    posterior, likelihood = _forward_backward(unary, steps, which, start, end)
    np.testing.assert_allclose(posterior, mass / mass.sum(1, keepdims=True), rtol=1e-9)
    assert likelihood == pytest.approx(np.log(mass[0].sum()))


def test_it_survives_json_and_one_slice(order: Order) -> None:
    again = Order.from_json(order.to_json())
    np.testing.assert_allclose(again.generator(1.0), order.generator(1.0))
    assert in_order(again, np.full((1, 7), 0.5), np.zeros(1), EVIDENCE_MM).shape == (1, 7)
    np.testing.assert_allclose(order.generator(1.1).sum(1), 0, atol=1e-12)
