"""Weights, calibration, JSON there and back, and nested predictions that never see their own labels."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_runs import random_labels, random_predictions

from cspine.blend import Blend, fit_blend, nested_blend
from cspine.errors import UserError
from cspine.metrics import weighted_log_loss

LABELS = random_labels(150)
FOLDS = np.arange(150) % 3
GOOD, FAIR, NOISE = (random_predictions(LABELS, strength, seed) for seed, strength in enumerate((1.5, 1.0, 0.0)))
STACK = np.stack([GOOD, FAIR, NOISE])


@given(st.integers(1, 4), st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_weights_are_convex_and_the_output_is_a_probability(members: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, stack = rng.integers(0, 2, (20, 8)), rng.choice([0.0, 0.2, 0.7, 1.0], (members, 20, 8))
    blend = fit_blend(stack, labels)
    assert sum(blend.weights) == pytest.approx(1)
    assert min(blend.weights) >= 0
    assert blend.scale > 0
    blended = blend.apply(list(stack))
    assert ((blended >= 0) & (blended <= 1)).all()


def test_a_perfect_member_beats_noise_and_equals_share() -> None:
    perfect = np.clip(LABELS, 0.05, 0.95)
    noise_weight, perfect_weight = fit_blend(np.stack([NOISE, perfect]), LABELS).weights
    assert perfect_weight > 0.9 > noise_weight
    assert fit_blend(np.stack([GOOD, GOOD, GOOD]), LABELS).weights == pytest.approx([1 / 3] * 3, abs=1e-9)


def test_the_blend_is_no_worse_in_sample_than_any_member_calibrated_alone() -> None:
    blended = weighted_log_loss(LABELS, fit_blend(STACK, LABELS).apply(list(STACK)), "column")
    for member in STACK:
        alone = weighted_log_loss(LABELS, fit_blend(member[None], LABELS).apply([member]), "column")
        # The pulls to equal weights, scale 1 and the priors may cost a little.
        assert blended <= alone + 1e-3
    assert blended < weighted_log_loss(LABELS, GOOD, "column")


def test_calibration_repairs_scale_and_bias() -> None:
    """On many studies, logits that were halved and shifted come back to what the unspoilt ones are fitted to."""
    labels = random_labels(2000)
    good = random_predictions(labels, 1.5)
    spoilt = 1 / (1 + np.exp(-(np.log(good / (1 - good)) / 2 - 3)))
    repaired = fit_blend(spoilt[None], labels).apply([spoilt])
    expected = fit_blend(good[None], labels).apply([good])
    # Only the pull of the scale to 1, worth 0.03 of 2000 studies, tells them apart.
    assert np.abs(repaired - expected).max() < 0.01


def test_nested_never_sees_its_rows() -> None:
    nested = nested_blend(STACK, LABELS, FOLDS)
    for fold in range(3):
        here = fold == FOLDS
        changed = np.where(here[:, None], 1 - LABELS, LABELS)
        again = nested_blend(STACK, changed, FOLDS)
        assert np.array_equal(again[here], nested[here])
        assert not np.array_equal(again[~here], nested[~here])
        expected = fit_blend(STACK[:, ~here], LABELS[~here]).apply(list(STACK[:, here]))
        assert np.array_equal(nested[here], expected)
    with pytest.raises(ValueError, match="two folds"):
        nested_blend(STACK, LABELS, np.zeros(150))


def test_json_there_and_back_is_the_same_to_the_last_bit() -> None:
    blend = fit_blend(STACK, LABELS, ["a", "b", "c"])
    again = Blend.from_json(json.loads(json.dumps({"more": 1, **blend.to_json()})))
    assert again == blend
    assert again.members == ("a", "b", "c")


def test_a_study_alone_gets_what_it_gets_among_others() -> None:
    """Nothing at inference depends on the other studies of the test set."""
    blend = fit_blend(STACK, LABELS)
    together = blend.apply(list(STACK))
    alone = np.concatenate([blend.apply([member[row : row + 1] for member in STACK]) for row in range(150)])
    # Vectorised logarithms may differ in the last bit between one row and many.
    assert np.allclose(alone, together, rtol=1e-13, atol=0)


def test_a_blend_of_other_code_is_refused() -> None:
    values = fit_blend(STACK, LABELS).to_json()
    with pytest.raises(UserError, match=r"lacks the key 'scale'.*src/ensemble\.py"):
        Blend.from_json({key: value for key, value in values.items() if key != "scale"})
    with pytest.raises(UserError, match="other code"):
        Blend.from_json({**values, "clip": 0.1})
    with pytest.raises(UserError, match="other code"):
        Blend.from_json({**values, "weights": [1.0]})


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="2 predictions for the 3 members"):
        fit_blend(STACK, LABELS).apply([GOOD, FAIR])
    with pytest.raises(ValueError, match="must be"):
        fit_blend(STACK[0], LABELS)
    with pytest.raises(ValueError, match="must be"):
        fit_blend(STACK[:, :5], LABELS)
    with pytest.raises(ValueError, match="in \\[0, 1\\]"):
        fit_blend(STACK + np.nan, LABELS)


def test_without_a_member_the_others_keep_their_shares() -> None:
    blend = Blend(("a", "b", "c"), (0.5, 0.3, 0.2), 1.7, tuple(np.linspace(-1, 1, 8)))
    assert blend.without(()) is blend
    rest = blend.without({"a"})
    assert rest.members == ("b", "c")
    assert rest.weights == pytest.approx((0.6, 0.4))
    rows = [np.full((1, 8), p) for p in (0.2, 0.7)]
    expected = 1 / (1 + np.exp(-(1.7 * (0.6 * np.log(0.25) + 0.4 * np.log(7 / 3)) + np.array(blend.biases))))
    assert rest.apply(rows)[0] == pytest.approx(expected)
    assert Blend(("a", "b"), (1.0, 0.0), 1.0, (0.0,) * 8).without({"a"}).weights == (1.0,)
    with pytest.raises(ValueError, match="no member"):
        blend.without({"a", "b", "c"})
