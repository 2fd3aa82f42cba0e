"""Nothing but the fracture itself may tell a fractured patient from another."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cspine.benchmarks.shortcuts import auc_table, model_scores, study_features
from cspine.metrics import auc
from cspine.phantom.labels import StudyPlan, plan_study
from cspine.phantom.writer import Order, make_study

ORDER = Order(studies=0, test_studies=0, seed=0, matrix=64, spacing_mm=3.0)
# What a fracture may change, in units of the spread between patients: some bone is displaced or turns to gap.
ALLOWED = 0.1


def features_of(folder: Path, plan: StudyPlan) -> dict[str, float]:
    make_study(folder, ORDER, plan)
    return study_features(folder / "train_images", plan.uid)


def test_the_same_patient_with_and_without_fracture_differs_in_no_feature(tmp_path: Path) -> None:
    plans = [plan for k in range(40) if (plan := plan_study(0, "train", k)).levels][:14]
    broken = pd.DataFrame([features_of(tmp_path / "broken", plan) for plan in plans])
    sound = pd.DataFrame([features_of(tmp_path / "sound", replace(plan, levels=())) for plan in plans])
    spread = sound.std().replace(0, 1)
    shift = ((broken - sound).abs() / spread).median()
    assert (shift < ALLOWED).all(), shift[shift >= ALLOWED].to_dict()


@pytest.mark.parametrize("shortcut", ["slices", "noise_hu"])
def test_a_shortcut_would_be_found(shortcut: str) -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(300) < 0.48
    features = pd.DataFrame(rng.standard_normal((300, 3)), columns=["slices", "noise_hu", "mean_hu"])
    chance = model_scores(features, labels)
    features[shortcut] += 0.8 * labels
    cheated = model_scores(features, labels)
    for name in chance:
        assert abs(auc(labels, chance[name]) - 0.5) < 0.12
        assert auc(labels, cheated[name]) > 0.62
    assert auc_table(features, labels).count("\n") == 5
