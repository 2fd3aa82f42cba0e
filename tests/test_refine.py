"""Own weights a target, and the stacker: what each can see that the shared blend cannot, and that both hold back."""

import numpy as np
import pytest
from simulated_runs import random_labels, random_predictions

from cspine import refine
from cspine.blend import fit_blend
from cspine.metrics import target_losses, weighted_log_loss
from cspine.refine import fit_by_target, fit_stacker


def test_a_member_good_at_one_level_weighs_more_there() -> None:
    labels = random_labels(600)
    one, other = (random_predictions(labels, 0.3, seed) for seed in (1, 2))
    one[:, 7] = random_predictions(labels, 2.0, 3)[:, 7]
    stack = np.stack([one, other])
    found = fit_by_target(stack, labels)
    shares = found.slopes / found.slopes.sum(axis=1, keepdims=True)
    assert shares[7, 0] > 0.7 > 0.6 > shares[:7, 0].max()
    assert (found.slopes >= 0).all()
    shared = fit_blend(stack, labels).apply(list(stack))
    assert target_losses(labels, found.apply(list(stack)))[7] < target_losses(labels, shared)[7] - 0.01


def test_the_patient_is_found_by_his_levels_and_a_level_by_its_neighbours() -> None:
    rng = np.random.default_rng(0)
    # C4 breaks where C3 and C5 do, and what is predicted of it and of the patient says nothing.
    labels = random_labels(800)
    labels[:, 5] = labels[:, 3]
    labels[:, 4] = labels[:, 3]
    labels[:, 0] = labels[:, 1:].any(axis=1)
    predictions = random_predictions(labels, 1.5, 1)
    predictions[:, [0, 4]] = rng.uniform(0.3, 0.7, (800, 2))
    train, test = slice(0, 400), slice(400, 800)
    stacker = fit_stacker(predictions[None, train], labels[train])
    blend = fit_blend(predictions[None, train], labels[train])
    stacked, blended = (target_losses(labels[test], way.apply([predictions[test]])) for way in (stacker, blend))
    assert stacked[0] < 0.7 * blended[0]
    assert stacked[4] < 0.85 * blended[4]


@pytest.mark.parametrize("fit", [fit_by_target, fit_stacker])
def test_pulled_hard_they_are_the_blend(fit, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = random_labels(60)
    stack = np.stack([random_predictions(labels, 1.0, seed) for seed in (1, 2)])
    blended = fit_blend(stack, labels).apply(list(stack))
    freed = fit(stack, labels).apply(list(stack))
    assert weighted_log_loss(labels, freed, "column") < weighted_log_loss(labels, blended, "column")
    monkeypatch.setattr(refine, "RIDGE", 1e7)
    assert np.abs(fit(stack, labels).apply(list(stack)) - blended).max() < 1e-4


@pytest.mark.parametrize("fit", [fit_by_target, fit_stacker])
def test_a_study_alone_gets_what_it_gets_among_others(fit) -> None:
    labels = random_labels(40)
    stack = np.stack([random_predictions(labels, 1.0, seed) for seed in (1, 2)])
    fitted = fit(stack, labels)
    alone = np.concatenate([fitted.apply(list(stack[:, row : row + 1])) for row in range(40)])
    assert np.allclose(alone, fitted.apply(list(stack)), rtol=1e-12)
