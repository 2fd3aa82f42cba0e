"""ensemble.py from the command line and what it leaves in oof/ensemble."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from simulated_runs import ROOT, SimulatedRuns, command

from cspine.anatomy import TARGETS
from cspine.blend import Blend, fit_blend, nested_blend
from cspine.calibrate import metric_prior, smoothed_prevalence
from cspine.ensemble_text import ensemble_text
from cspine.ensembling import choose_members, describe, fit_ensemble
from cspine.errors import UserError
from cspine.metrics import sensitivity, weighted_log_loss
from cspine.paths import GET_DATA
from cspine.scorecard import report_html
from cspine.scores import out_of_fold_scores
from cspine.tables import STUDY, read_study_table
from cspine.thresholds import best_thresholds
from cspine.ways import compare_ways


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> SimulatedRuns:
    made = SimulatedRuns(tmp_path_factory.mktemp("runs"))
    made.good = made.add_fracture("good", 1.2, seed=1)  # type: ignore[attr-defined]
    made.fair = made.add_fracture("fair", 0.6, seed=2)  # type: ignore[attr-defined]
    made.add_vertebra("vertebrae")
    made.add_fold("half", "fracture/slice", 1)
    return made


@pytest.fixture(scope="module")
def done(runs: SimulatedRuns) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "src/ensemble.py", *runs.words]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)


def test_it_says_whom_it_takes_and_whom_it_passes_over(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr
    assert "members: fair, good" in done.stdout
    assert "passed over half: folds 0, 2 missing" in done.stdout
    for row in ("constant q ", "constant 2q/(1+q) ", "prior ", "good ", "fair ", "blend ", "wrote "):
        assert f"  {row}" in done.stdout or done.stdout.count(row) == 4


def test_the_files_hold_the_blend_and_its_nested_predictions(runs: SimulatedRuns, done) -> None:  # noqa: ARG001
    folder = runs.oof / "ensemble"
    assert sorted(file.name for file in folder.iterdir()) == ["blend.json", "oof.csv", "report.html", "thresholds.csv"]
    stack = np.stack([runs.fair, runs.good])  # type: ignore[attr-defined]
    values = json.loads((folder / "blend.json").read_text())
    ways = compare_ways(stack, runs.labels, runs.folds, ["fair", "good"])
    assert Blend.from_json(values) == ways.blend
    assert values["way"] == ways.way
    assert sorted(values["least_valuable_first"]) == ["fair", "good"]
    table = read_study_table(folder / "oof.csv").set_index(STUDY).loc[runs.uids]
    nested = ways.chosen
    assert np.array_equal(table[list(TARGETS)].to_numpy(), nested)
    assert table["fold"].tolist() == runs.folds.tolist()
    assert list(values["thresholds"].values()) == best_thresholds(runs.labels, nested).tolist()
    assert list(values["priors"].values()) == metric_prior(smoothed_prevalence(runs.labels)).tolist()
    assert list(values["thresholds"]) == list(values["priors"]) == list(values["biases"]) == list(TARGETS)
    assert values["threshold_rule"] == "f1"
    points = pd.read_csv(folder / "thresholds.csv")
    c3 = points[(points["rule"] == "f1") & (points["target"] == "C3")].iloc[0]
    assert c3["threshold"] == pytest.approx(values["thresholds"]["C3"], abs=1e-6)
    assert values["refer"]["coverage"] == 0.9
    assert values["nested_loss"]["column"] == weighted_log_loss(runs.labels, nested, "column")
    assert set(values["inputs"]) == {"fair", "good", "folds.csv", "train.csv"}


def test_the_same_inputs_give_the_same_bytes(runs: SimulatedRuns, done, monkeypatch, capsys) -> None:  # noqa: ARG001
    """There from a process of its own, here in this one."""
    files = sorted((runs.oof / "ensemble").iterdir())
    before = [file.read_bytes() for file in files]
    assert command("src/ensemble.py", monkeypatch, capsys)("fair", "good", *runs.words).returncode == 0
    assert [file.read_bytes() for file in files] == before


def test_the_rule_asked_for_makes_the_thresholds(tmp_path: Path, monkeypatch, capsys) -> None:
    made = SimulatedRuns(tmp_path)
    made.add_fracture("only")
    call = command("src/ensemble.py", monkeypatch, capsys)
    done = call("--threshold", "sensitivity:0.9", "--prevalence", "0.2", "--coverage", "0.8", *made.words)
    assert done.returncode == 0, done.stderr
    assert "by the rule sensitivity:0.9" in done.stdout
    assert "prevalence of 0.2" in done.stdout
    assert "coverage 0.8" in done.stdout
    values = json.loads((made.oof / "ensemble" / "blend.json").read_text())
    nested = read_study_table(made.oof / "ensemble" / "oof.csv").set_index(STUDY).loc[made.uids]
    for place, target in enumerate(TARGETS):
        found = nested[target].to_numpy() >= values["thresholds"][target]
        reached = sensitivity(made.labels[:, place], found)
        assert reached is None or reached >= 0.9
    for words, told in (
        (["--threshold", "f3"], "'f3' is no rule"),
        (["--coverage", "1"], "--coverage 1.0: must lie within"),
    ):
        refused = call(*words, *made.words)
        assert (refused.returncode, told in refused.stderr) == (2, True), refused.stderr


def test_what_is_scored_where(runs: SimulatedRuns) -> None:
    made = fit_ensemble(choose_members(runs.oof, ["good", "fair"]), runs.config)
    good = made.members[0]
    raw = runs.good  # type: ignore[attr-defined]
    assert good.raw == weighted_log_loss(runs.labels, raw, "column")
    fitted = fit_blend(raw[None], runs.labels).apply([raw])
    assert good.fitted == weighted_log_loss(runs.labels, fitted, "column")
    assert np.array_equal(good.nested, nested_blend(raw[None], runs.labels, runs.folds))
    # Fitting on the rows themselves looks better than it is.
    assert all(entry.fitted < entry.scores["loss"]["column"] for entry in (*made.members, made.blended))
    assert made.blended.nested is made.ways.chosen
    q = np.tile(runs.labels.mean(axis=0), (60, 1))
    assert made.oracles["q"]["row"] == weighted_log_loss(runs.labels, q, "row")
    assert describe(made)["dataset"] == "phantom"
    assert "60 studies of phantom, 3 folds" in ensemble_text(made)


def test_evaluate_scores_the_blend_as_ensemble_did(runs: SimulatedRuns, done) -> None:  # noqa: ARG001
    from cspine.runs import find_runs, read_out_of_fold

    made = fit_ensemble(choose_members(runs.oof, []), runs.config)
    data = read_out_of_fold(find_runs(runs.oof, ["ensemble"]), runs.config)
    assert out_of_fold_scores("ensemble", data) == made.blended.scores


def test_one_member_alone_and_levels_without_positives_are_no_trouble(tmp_path: Path, monkeypatch, capsys) -> None:
    made = SimulatedRuns(tmp_path, studies=12, folds=2)
    made.add_fracture("only")
    assert (made.labels.sum(axis=0) == 0).any()
    done = command("src/ensemble.py", monkeypatch, capsys)(*made.words)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert json.loads((made.oof / "ensemble" / "blend.json").read_text())["weights"] == [1.0]


def test_members_without_information_are_called_that(tmp_path: Path) -> None:
    made = SimulatedRuns(tmp_path)
    made.add_fracture("backwards", -1.0)
    useless = fit_ensemble(choose_members(made.oof, []), made.config)
    assert "warning: no member tells fractures apart" in ensemble_text(useless)
    assert "Warning: no member tells fractures apart" in report_html(useless)
    made.add_fracture("forwards", 1.0)
    assert "no member tells" not in ensemble_text(fit_ensemble(choose_members(made.oof, []), made.config))


def test_who_cannot_be_a_member(runs: SimulatedRuns, done) -> None:  # noqa: ARG001
    for name in ("vertebrae", "ensemble"):
        with pytest.raises(UserError, match=f"{name}: only fracture runs can be blended"):
            choose_members(runs.oof, [name])
    with pytest.raises(UserError, match="half is incomplete"):
        choose_members(runs.oof, ["half"])
    with pytest.raises(UserError, match="no fracture run with all folds"):
        choose_members(runs.oof / "nowhere", [])


def test_no_data_names_both_ways_to_get_some(tmp_path: Path, monkeypatch, capsys) -> None:
    done = command("src/ensemble.py", monkeypatch, capsys)(f"paths.input={tmp_path}", f"paths.oof={tmp_path}")
    assert done.returncode == 1
    assert GET_DATA in done.stderr
    assert "Traceback" not in done.stderr
