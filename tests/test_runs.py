"""Which runs there are, what an incomplete one lacks, and that predictions are matched by study and fold."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from simulated_runs import SimulatedRuns

from cspine.ensembling import choose_members
from cspine.errors import UserError
from cspine.runs import ENSEMBLE, Run, all_runs, complete_runs, find_runs, read_out_of_fold, require_same_data
from cspine.tables import write_table


@pytest.fixture
def runs(tmp_path: Path) -> SimulatedRuns:
    made = SimulatedRuns(tmp_path)
    made.add_fracture("good")
    made.add_vertebra("vertebrae")
    made.add_fold("half", "fracture/slice", 1)
    return made


def test_kinds_and_completeness(runs: SimulatedRuns) -> None:
    runs.add_fold("boxes", "localise/ssd", 0)
    runs.add_fold("else", "another/task", 0)
    write_table(runs.table(runs.labels), runs.oof / ENSEMBLE / "oof.csv")
    (runs.oof / "README.md").write_text("not a run")
    assert [(run.name, run.kind) for run in all_runs(runs.oof)] == [
        ("boxes", "localise"),
        ("good", "fracture"),
        ("half", "fracture"),
        ("vertebrae", "vertebra"),
    ]
    assert [run.name for run in complete_runs(runs.oof, "fracture")] == ["good"]
    assert [run.name for run in complete_runs(runs.oof, "vertebra")] == ["vertebrae"]
    assert complete_runs(runs.oof / "nowhere") == []


def test_a_run_says_what_it_lacks(runs: SimulatedRuns) -> None:
    half = Run("half", runs.oof / "half")
    assert half.lacks() == (
        "folds 0, 2 missing; train with: python src/train.py --config <the config named half> --fold all --resume"
    )
    runs.add_fold("half", "fracture/slice", 0)
    assert "fold 2 missing" in str(half.lacks())
    assert "--fold 2 --resume" in str(half.lacks())
    runs.add_fold("half", "fracture/slice", 2, config_hash="other")
    assert "different configs" in str(half.lacks())
    runs.add_fold("half", "fracture/slice", 2, data="d2")
    assert "different data (d1, d2)" in str(half.lacks())
    runs.add_fold("half", "fracture/slice", 2)
    assert "oof.csv is missing" in str(half.lacks())
    (runs.oof / "good" / "fold1" / "done.json").unlink()  # begun again: the table is of yesterday
    assert "fold 1 missing" in str(Run("good", runs.oof / "good").lacks())


def test_runs_by_name(runs: SimulatedRuns) -> None:
    assert [run.name for run in find_runs(runs.oof, ["vertebrae", "good", "vertebrae"])] == ["vertebrae", "good"]
    with pytest.raises(UserError, match=r"no run goood .*did you mean 'good'"):
        find_runs(runs.oof, ["goood"])
    with pytest.raises(UserError, match=r"half is incomplete: folds 0, 2 missing; train with: python src/train\.py"):
        find_runs(runs.oof, ["half"])
    with pytest.raises(UserError, match="holds no run; train some"):
        find_runs(runs.folder / "nowhere", ["good"])
    with pytest.raises(UserError, match="no run ensemble"):
        find_runs(runs.oof, [ENSEMBLE])
    write_table(runs.table(runs.labels), runs.oof / ENSEMBLE / "oof.csv")
    assert find_runs(runs.oof, [ENSEMBLE])[0].kind == "fracture"


def test_runs_on_different_data_are_told_apart(runs: SimulatedRuns) -> None:
    runs.add_fracture("same")
    require_same_data(find_runs(runs.oof, ["good", "same"]))
    runs.add_fracture("other")
    for fold in range(3):
        runs.add_fold("other", "fracture/slice", fold, data="d2")
    with pytest.raises(UserError, match=r"different data \(good on d1; other on d2; see data\.json"):
        require_same_data(find_runs(runs.oof, ["good", "other"]))
    for fold in range(3):
        (runs.oof / "other" / f"fold{fold}" / "data.json").unlink()
    with pytest.raises(UserError, match="other on unknown"):
        choose_members(runs.oof, [])


def test_predictions_stand_beside_their_own_labels(runs: SimulatedRuns) -> None:
    predictions = runs.add_fracture("other", seed=4)
    folds_csv = runs.folder / "input" / "folds.csv"
    order = np.random.default_rng(0).permutation(len(runs.uids))
    write_table(pd.read_csv(folds_csv, dtype=str).iloc[order], folds_csv)
    data = read_out_of_fold(find_runs(runs.oof, ["other"]), runs.config)
    assert data.uids == tuple(np.array(runs.uids)[order])
    assert np.array_equal(data.labels, runs.labels[order])
    assert np.array_equal(data.predictions["other"], predictions[order])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda table: table.assign(fold=(table["fold"] + 1) % 3), r"is in fold 1, in .*folds\.csv in fold 0"),
        (lambda table: table.iloc[1:], "do not hold the same studies, for example 1.2.826.0.1.3680043.0"),
        (lambda table: table.drop(columns="fold"), "the column 'fold' is missing"),
        (lambda table: table.assign(C3=np.nan), "column C3: .* is not a probability"),
    ],
)
def test_a_table_of_other_folds_or_studies_is_refused(runs: SimulatedRuns, change, told: str) -> None:
    write_table(change(runs.table(runs.labels.astype(float))), runs.oof / "good" / "oof.csv")
    with pytest.raises(UserError, match=told):
        read_out_of_fold(find_runs(runs.oof, ["good"]), runs.config)


def test_labels_of_another_dataset_are_refused(runs: SimulatedRuns) -> None:
    write_table(runs.table(runs.labels).iloc[:30], runs.train_csv)
    with pytest.raises(UserError, match=r"study 1\.2\.826\.0\.1\.3680043\.30 is not in .*train\.csv; do data\.root"):
        read_out_of_fold(find_runs(runs.oof, ["good"]), runs.config)
