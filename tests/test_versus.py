"""Two runs held against each other: signs, intervals, words, refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
from simulated_runs import SimulatedRuns, command

from cspine.metrics import auc, weighted_log_loss
from cspine.versus import compare_runs, comparison_text


@pytest.fixture
def runs(tmp_path: Path) -> SimulatedRuns:
    made = SimulatedRuns(tmp_path, studies=150)
    made.good = made.add_fracture("good", 1.2, seed=1)  # type: ignore[attr-defined]
    made.poor = made.add_fracture("poor", 0.2, seed=2)  # type: ignore[attr-defined]
    made.add_fracture("twin", 1.2, seed=3)
    made.add_vertebra("vertebrae")
    return made


def test_better_is_positive_for_losses_and_areas_and_turns_with_the_order(runs: SimulatedRuns) -> None:
    found = compare_runs("good", "poor", runs.config)["better"]
    losses = [weighted_log_loss(runs.labels, table, "column") for table in (runs.good, runs.poor)]  # type: ignore[attr-defined]
    assert found["column"][0] == pytest.approx(losses[1] - losses[0])
    areas = [auc(runs.labels[:, 0], table[:, 0]) for table in (runs.good, runs.poor)]  # type: ignore[attr-defined]
    assert found["patient_auc"][0] == pytest.approx(np.subtract(*areas))
    assert all(low < value < high for value, low, high in found.values())
    turned = compare_runs("poor", "good", runs.config)["better"]
    assert turned["column"] == pytest.approx([-found["column"][0], -found["column"][2], -found["column"][1]])


def test_in_words(runs: SimulatedRuns, monkeypatch, capsys) -> None:
    call = command("src/evaluate.py", monkeypatch, capsys)
    done = call("--compare", "poor", "good", *runs.words)
    assert done.returncode == 0, done.stderr
    value, low, high = compare_runs("good", "poor", runs.config)["better"]["column"]
    assert f"  column loss: good better than poor: {value:.4f} [{low:.4f}, {high:.4f}]\n" in done.stdout
    assert "AUC of patients: good better than poor" in done.stdout
    assert "which may be chance" in comparison_text(compare_runs("good", "twin", runs.config))
    as_json = json.loads(call("--compare", "good", "poor", "--json", *runs.words).stdout)
    assert as_json == compare_runs("good", "poor", runs.config)


def test_what_cannot_be_compared(runs: SimulatedRuns, monkeypatch, capsys) -> None:
    call = command("src/evaluate.py", monkeypatch, capsys)
    for words, status, told in (
        (["--compare", "good", "good"], 1, "as good as itself"),
        (["--compare", "good", "vertebrae"], 1, "only fracture runs"),
        (["--compare", "good", "pour"], 1, "did you mean 'poor'?"),
        (["twin", "--compare", "good", "poor"], 2, "leave out the run twin"),
    ):
        done = call(*words, *runs.words)
        assert (done.returncode, told in done.stderr) == (status, True), done.stderr
        assert "Traceback" not in done.stderr
