"""Nothing but the fracture itself may tell a fractured patient from another."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cspine.benchmarks.shortcuts import auc_table, model_scores, study_features
from cspine.metrics import auc
from cspine.phantom.acquisition import draw_acquisition
from cspine.phantom.anatomy import draw_patient
from cspine.phantom.labels import SYNTAX_SHARES, StudyPlan, plan_study
from cspine.phantom.scanner import draw_scanner
from cspine.phantom.writer import Order, make_study

ORDER = Order(studies=0, test_studies=0, seed=0, matrix=64, spacing_mm=3.0)
# What a fracture may change, in units of the spread between patients: some bone is displaced or turns to gap.
ALLOWED = 0.1


def features_of(folder: Path, plan: StudyPlan) -> dict[str, float]:
    make_study(folder, ORDER, plan)
    return study_features(folder / "train_images", plan.uid)


def test_the_same_patient_with_and_without_fracture_differs_in_no_feature(tmp_path: Path) -> None:
    plans = [plan for k in range(40) if (plan := plan_study(0, "train", k)).levels][:10]
    broken = pd.DataFrame([features_of(tmp_path / "broken", plan) for plan in plans])
    sound = pd.DataFrame([features_of(tmp_path / "sound", replace(plan, levels=())) for plan in plans])
    spread = sound.std().replace(0, 1)
    shift = ((broken - sound).abs() / spread).median()
    assert (shift < ALLOWED).all(), shift[shift >= ALLOWED].to_dict()


def test_what_is_scanned_and_how_it_is_stored_tell_nothing_of_the_label() -> None:
    plans = [plan_study(0, "train", k) for k in range(2000)]
    features = pd.DataFrame([_drawn_features(plan) for plan in plans])
    labels = np.array([bool(plan.levels) for plan in plans])
    # The standard error of an AUC over 2,000 studies is 0.013.
    found = {name: auc(labels, features[name].to_numpy()) for name in features}
    assert all(value is not None and abs(value - 0.5) < 0.04 for value in found.values()), found


def _drawn_features(plan: StudyPlan) -> dict[str, float]:
    """What is known before a voxel is painted."""
    spine, _, _ = draw_patient(plan.rng("anatomy"))
    scan = draw_acquisition(spine, plan, 64, None)
    scanner, storage = draw_scanner(plan.rng("scanner")), plan.storage
    return {
        "slices": scan.grid.shape[0],
        "extent_mm": scan.grid.shape[0] * scan.grid.spacing_mm,
        "spacing_mm": scan.grid.spacing_mm,
        "thickness_mm": scan.thickness_mm,
        "pixel_mm": scan.grid.pixel_mm,
        "rows": scan.grid.shape[1],
        "columns": scan.grid.shape[2],
        "noise_hu": scanner.noise_hu,
        "moved": scanner.motion is not None,
        "syntax": list(SYNTAX_SHARES).index(storage.syntax),
        "signed": storage.signed,
        "intercept_hu": storage.intercept_hu,
        "padding": storage.padding or 0,
        "inverted": storage.inverted,
        "ascending": plan.ascending,
        "first_number": plan.first_number,
        "has_mask": plan.has_mask,
        "uid": int(plan.uid.rsplit(".", 1)[-1]),
    }


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
