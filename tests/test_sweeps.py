"""Where a study is looked at: evenly in mm over what stage 1 sees, whatever the scanner; sequences of one length."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cspine.config import Sweep
from cspine.data.sweeps import SweepSamples, sweep_indices


def presence_between(z_mm: np.ndarray, top_mm: float, bottom_mm: float) -> np.ndarray:
    seen = np.zeros((len(z_mm), 7))
    seen[(z_mm <= top_mm) & (z_mm >= bottom_mm), 3] = 0.9
    return seen


@given(
    spacing_mm=st.floats(0.3, 5),
    step_mm=st.floats(0.5, 4),
    most=st.integers(1, 200),
    top_mm=st.floats(60, 90),
    bottom_mm=st.floats(-90, 0),
)
def test_slices_are_evenly_spaced_over_what_is_seen(
    spacing_mm: float, step_mm: float, most: int, top_mm: float, bottom_mm: float
) -> None:
    z_mm = np.arange(100, -100, -spacing_mm)
    presence = presence_between(z_mm, top_mm, bottom_mm)
    chosen = sweep_indices(z_mm, presence, Sweep(step_mm=step_mm, slices=most))
    seen = np.flatnonzero(presence.any(axis=1))
    assert 1 <= len(chosen) <= most
    assert seen[0] <= chosen.min()
    assert chosen.max() <= seen[-1]
    assert (np.diff(chosen) >= 0).all()
    length_mm = z_mm[seen[0]] - z_mm[seen[-1]]
    ideal_mm = length_mm / len(chosen)
    assert len(chosen) == most or abs(len(chosen) * step_mm - length_mm) <= step_mm / 2 + 1e-6
    # As far from the top as from the bottom.
    above_mm, below_mm = z_mm[seen[0]] - z_mm[chosen[0]], z_mm[chosen[-1]] - z_mm[seen[-1]]
    assert abs(above_mm - below_mm) <= spacing_mm + 1e-6
    steps_mm = -np.diff(z_mm[chosen])
    assert (np.abs(steps_mm - ideal_mm) <= spacing_mm + 1e-6).all()


def test_a_scanner_with_thinner_slices_gives_the_same_places() -> None:
    settings = Sweep(step_mm=2.0, slices=100)
    places = []
    for spacing_mm in (0.5, 1.0, 3.0):
        z_mm = np.arange(120, -120.1, -spacing_mm)
        chosen = sweep_indices(z_mm, presence_between(z_mm, 60, -60), settings)
        assert len(chosen) == 60
        places.append(z_mm[chosen])
    assert np.abs(places[0] - places[1]).max() <= 0.75
    assert np.abs(places[0] - places[2]).max() <= 1.75


def test_nothing_seen_gives_no_slices_and_a_single_one_gives_itself() -> None:
    z_mm = np.arange(10.0, 0.0, -1.0)
    assert len(sweep_indices(z_mm, np.full((10, 7), 0.01), Sweep())) == 0
    assert sweep_indices(z_mm, presence_between(z_mm, 5.2, 4.8), Sweep()).tolist() == [5]


def test_a_sample_is_filled_up_with_zeros() -> None:
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(n, 3)).astype(np.float16) for n in (4, 2)]
    presence = [rng.random((n, 7)) for n in (4, 2)]
    samples = SweepSamples(features, presence, np.eye(8)[:2], np.ones((2, 8)), slices=5)
    for number, count in enumerate((4, 2)):
        sample = samples[number, 7]
        assert sample["found"].tolist() == [1.0] * count + [0.0] * (5 - count)
        assert sample["image"][:count].numpy() == pytest.approx(features[number])
        assert sample["attributes"][:count].numpy() == pytest.approx(presence[number])
        assert not sample["image"][count:].any()
        assert not sample["attributes"][count:].any()
        assert sample["fractured"].tolist() == np.eye(8)[number].tolist()
    assert sorted(samples.draw(rng)) == [0, 1]
