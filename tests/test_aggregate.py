"""From slices to levels: a weighted mean that stays a mean, and a prior where there is nothing to take it of."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cspine.aggregate import level_probabilities, overall

PRIORS = np.linspace(0.05, 0.2, 7)
UNIT = st.floats(0, 1)
SLICES = st.integers(1, 8).flatmap(
    lambda n: st.tuples(arrays(float, (n, 7), elements=UNIT), arrays(float, (n, 7), elements=UNIT))
)


def test_by_hand() -> None:
    presence = np.zeros((3, 7))
    presence[:, 1] = [1.0, 0.5, 0.0]
    presence[:, 2] = [0.0, 0.3, 0.1]  # 0.4 slices of 2 mm
    found = level_probabilities(np.array([0.9, 0.3, 0.1]), presence, 2.0, PRIORS)
    assert found[1] == pytest.approx((0.9 + 0.15) / 1.5)
    assert np.array_equal(np.delete(found, 1), np.delete(PRIORS, 1))
    assert level_probabilities(np.array([0.9, 0.3, 0.1]), presence, 5.0, PRIORS)[2] == pytest.approx(0.25)
    assert level_probabilities(np.array([0.9, 0.3, 0.1]), presence, 2.0, PRIORS, 0.8)[2] == pytest.approx(0.25)


def test_the_clearest_millimetres_by_hand() -> None:
    presence = np.zeros((5, 7))
    presence[:, 1] = [1.0, 0.9, 0.8, 0.5, 0.2]
    f = np.array([0.1, 0.6, 0.4, 0.8, 0.99])  # the last slice shows the level too little to speak for it
    for clearest_mm, expected in ((0.0, 0.8), (2.0, 0.8), (4.0, 0.7), (100.0, (0.1 + 0.6 + 0.4 + 0.8) / 4)):
        found = level_probabilities(f, presence, 2.0, PRIORS, clearest_mm=clearest_mm)
        assert found[1] == pytest.approx(expected)
        assert np.array_equal(np.delete(found, 1), np.delete(PRIORS, 1))


def test_one_probability_a_slice_serves_all_levels() -> None:
    rng = np.random.default_rng(0)
    f, v = rng.uniform(size=5), rng.uniform(size=(5, 7))
    alike = level_probabilities(np.tile(f[:, None], 7), v, 1.0, PRIORS)
    assert np.array_equal(level_probabilities(f, v, 1.0, PRIORS), alike)


@given(SLICES, st.floats(0.1, 10), st.none() | st.floats(0, 20))
@settings(deadline=None)
def test_between_the_least_and_the_greatest_slice_or_the_prior(table, spacing_mm: float, clearest_mm) -> None:
    f, v = table
    found = level_probabilities(f, v, spacing_mm, PRIORS, minimum_mm=0.0, clearest_mm=clearest_mm)
    bounded = (found >= f.min(axis=0)) & (found <= f.max(axis=0))
    assert (bounded | ((v.sum(axis=0) == 0) & (found == PRIORS))).all()


@given(SLICES, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_the_slices_is_nothing(table, random) -> None:
    f, v = table
    order = random.sample(range(len(f)), len(f))
    # No level at the very edge of being found, where the order of a sum decides.
    v = v.round(3)
    found = level_probabilities(f, v, 1.0, PRIORS, minimum_mm=0.0005)
    assert np.allclose(level_probabilities(f[order], v[order], 1.0, PRIORS, minimum_mm=0.0005), found, atol=1e-12)


@given(SLICES, UNIT)
@settings(deadline=None)
def test_a_constant_stays_the_constant(table, constant: float) -> None:
    _, v = table
    found = level_probabilities(np.full(len(v), constant), v, 10.0, np.full(7, constant))
    assert np.array_equal(found, np.full(7, constant))


def test_no_slice_gives_the_priors_and_they_are_not_lent() -> None:
    priors = PRIORS.copy()
    found = level_probabilities(np.zeros(0), np.zeros((0, 7)), 1.0, priors)
    found[0] = 9
    assert np.array_equal(priors, PRIORS)


@pytest.mark.parametrize(
    ("f", "v", "told"),
    [
        (np.zeros(3), np.zeros((4, 7)), "does not fit"),
        (np.zeros((3, 6)), np.zeros((3, 7)), "does not fit"),
        (np.full(3, np.nan), np.zeros((3, 7)), "fractured holds"),
        (np.zeros(3), np.full((3, 7), -0.1), "presence holds"),
    ],
)
def test_what_does_not_fit_is_refused(f: np.ndarray, v: np.ndarray, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        level_probabilities(f, v, 1.0, PRIORS)


@given(arrays(float, 7, elements=UNIT))
@settings(deadline=None)
def test_overall_is_a_probability_not_below_any_level(levels: np.ndarray) -> None:
    assert levels.max() <= overall(levels) <= 1
    assert overall(levels) == pytest.approx(1 - np.prod([1 - p for p in levels]), abs=1e-12)
