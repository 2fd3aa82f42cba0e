"""The JSON of the contract, its numbers by hand, and the thresholds they are taken at."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from simulated_runs import SimulatedRuns, random_labels, random_predictions
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from cspine.anatomy import LEVELS, OVERALL, TARGETS
from cspine.errors import UserError
from cspine.metrics import weighted_log_loss
from cspine.runs import OutOfFold
from cspine.scores import (
    out_of_fold_scores,
    read_thresholds,
    slice_scores,
    slice_text,
    study_scores,
    study_text,
    text_table,
)
from cspine.tables import RAW, SEEN, STUDY
from cspine.thresholds import nested_thresholds

LABELS = random_labels(200)
PREDICTIONS = random_predictions(LABELS, 1.0)


def test_the_keys_of_the_contract() -> None:
    scores = study_scores(LABELS, PREDICTIONS)
    assert set(scores) == {"loss", "targets", "vertebra_level", "patient_level", "studies"}
    assert set(scores["loss"]) == {"row", "global", "column"}
    assert list(scores["targets"]) == [*LEVELS, OVERALL]
    assert all(set(row) == {"auc", "f1", "accuracy", "threshold", "positives"} for row in scores["targets"].values())
    assert set(scores["vertebra_level"]) == set(scores["patient_level"]) == {"accuracy", "f1"}
    assert scores["studies"] == 200
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores


@pytest.mark.parametrize("thresholds", [None, np.linspace(0.1, 0.8, 8)])
def test_the_numbers_against_scikit_learn(thresholds: np.ndarray | None) -> None:
    scores = study_scores(LABELS, PREDICTIONS, thresholds)
    cuts = np.full(8, 0.5) if thresholds is None else thresholds
    found = (cuts <= PREDICTIONS).astype(int)
    for column, target in enumerate(TARGETS):
        assert scores["targets"][target] == {
            "auc": pytest.approx(roc_auc_score(LABELS[:, column], PREDICTIONS[:, column])),
            "f1": pytest.approx(f1_score(LABELS[:, column], found[:, column], zero_division=0)),
            "accuracy": pytest.approx(accuracy_score(LABELS[:, column], found[:, column])),
            "threshold": pytest.approx(cuts[column]),
            "positives": LABELS[:, column].sum(),
        }
    assert scores["vertebra_level"]["f1"] == pytest.approx(f1_score(LABELS[:, 1:].ravel(), found[:, 1:].ravel()))
    assert scores["vertebra_level"]["accuracy"] == pytest.approx((LABELS[:, 1:] == found[:, 1:]).mean())
    assert scores["patient_level"]["f1"] == scores["targets"][OVERALL]["f1"]
    assert scores["patient_level"]["accuracy"] == scores["targets"][OVERALL]["accuracy"]
    assert scores["loss"]["row"] == weighted_log_loss(LABELS, PREDICTIONS, "row")


def test_a_target_without_positives_has_no_auc_and_is_printed_as_a_dash() -> None:
    labels = LABELS.copy()
    labels[:, 3] = 0
    scores = study_scores(labels, PREDICTIONS)
    assert scores["targets"]["C3"]["auc"] is None
    line = next(line for line in study_text("x", scores).splitlines() if line.split()[0] == "C3")
    assert line.split()[1] == "-"


def test_out_of_fold_decisions_come_from_the_other_folds() -> None:
    folds = np.arange(200) % 4
    data = OutOfFold(tuple(map(str, range(200))), folds, LABELS, {"run": PREDICTIONS})
    cuts = nested_thresholds(LABELS, PREDICTIONS, folds)
    scores = out_of_fold_scores("run", data)
    assert scores == study_scores(LABELS, PREDICTIONS, cuts)
    assert scores["targets"]["C2"]["threshold"] == pytest.approx(cuts[:, 2].mean())


def slice_table(found: list[list[float]], truth: list[list[float]]) -> pd.DataFrame:
    table = pd.DataFrame(found, columns=list(LEVELS))
    table[[f"{level}_true" for level in LEVELS]] = truth
    table.insert(0, STUDY, "1.2.3")
    return table.assign(source="oof", fold=0, z_mm=-np.arange(len(table), dtype=float))


def test_slices_by_hand() -> None:
    found = [[0.9, 0.6, *[0.1] * 5], [0.9, 0.4, *[0.1] * 5], [0.1] * 7]
    truth = [[1, 1, *[0] * 5], [1, 1, *[0] * 5], [0] * 7]
    scores = slice_scores(slice_table(found, truth))
    assert scores["accuracy"] == pytest.approx(20 / 21)
    assert scores["exact_match"] == pytest.approx(2 / 3)
    assert scores["f1"] == {"C1": 1.0, "C2": pytest.approx(2 / 3), **dict.fromkeys(LEVELS[2:], 0.0)}
    assert (scores["slices"], scores["studies"]) == (3, 1)
    assert scores["levels"] == {}, "no level is whole on these slices"
    assert "0.9524" in slice_text("v", scores)


def test_the_raw_probabilities_are_scored_beside_the_ordered_ones() -> None:
    truth = [[0.0] * 7, [1.0, *[0.0] * 6], [1.0, *[0.0] * 6], [0.0] * 7]
    table = slice_table(truth, truth)
    table[list(RAW)] = 0.4
    table[list(SEEN)] = truth
    scores = slice_scores(table)
    assert (scores["accuracy"], scores["raw"]["accuracy"]) == (1.0, pytest.approx(26 / 28))
    assert scores["levels"]["within_5_mm"] == 1.0
    assert scores["raw"]["levels"]["within_20_mm"] == 0.0
    told = slice_text("v", scores).splitlines()
    assert [line.split()[0] for line in told[2:4]] == ["in", "raw"]


def test_slices_without_a_mask_or_seen_in_training_do_not_count(tmp_path: Path) -> None:
    table = SimulatedRuns(tmp_path).add_vertebra("v")
    scores = slice_scores(table)
    assert (scores["slices"], scores["studies"]) == (16, 2)
    assert scores == slice_scores(table[table["source"] == "oof"])
    trained_on = table.assign(**{f"{level}_true": 1.0 for level in LEVELS})
    assert slice_scores(trained_on)["slices"] == 16
    with pytest.raises(UserError, match="nothing to score it by"):
        slice_scores(table[table["source"] == "mean"])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{}", "'thresholds' is missing"),
        ("[]", "'thresholds' is missing"),
        ('{"thresholds": {"c1": 0.5}}', "thresholds.patient_overall is missing"),
        (json.dumps({"thresholds": {**dict.fromkeys(TARGETS, 0.5), "C7": None}}), "C7 must be a number, not None"),
        ("{", "not valid JSON"),
    ],
)
def test_a_file_without_thresholds_is_refused(tmp_path: Path, content: str, told: str) -> None:
    file = tmp_path / "blend.json"
    with pytest.raises(UserError, match=r"blend\.json is missing; make one with: python src/ensemble\.py"):
        read_thresholds(file)
    file.write_text(content)
    with pytest.raises(UserError, match=told):
        read_thresholds(file)


def test_columns_are_aligned() -> None:
    assert text_table(["", "b"], [["long", "1"], ["x", "234"]], "") == "        b\nlong    1\nx     234"
