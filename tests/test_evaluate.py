"""evaluate.py from the command line: its JSON, its tables, its refusals."""

import json
from pathlib import Path

import pytest
from simulated_runs import Command, SimulatedRuns, command

from cspine.anatomy import TARGETS
from cspine.evaluation import evaluate_file, evaluate_runs, evaluation_text
from cspine.paths import GET_DATA
from cspine.runs import ENSEMBLE
from cspine.scores import study_scores
from cspine.tables import STUDY, submission_rows, write_table


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return command("src/evaluate.py", monkeypatch, capsys)


@pytest.fixture
def runs(tmp_path: Path) -> SimulatedRuns:
    made = SimulatedRuns(tmp_path)
    made.add_fracture("good")
    made.add_vertebra("vertebrae")
    made.add_fold("half", "fracture/slice", 1)
    return made


def test_json_of_runs_is_one_object_and_nothing_else(evaluate: Command, runs: SimulatedRuns) -> None:
    done = evaluate("--json", *runs.words)
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)
    assert list(scores) == ["good", "vertebrae"]
    assert set(scores["good"]) == {"loss", "targets", "vertebra_level", "patient_level", "studies", "intervals"}
    assert set(scores["vertebrae"]) == {"accuracy", "exact_match", "f1", "levels", "slices", "studies"}


def test_of_two_runs_the_worse_is_held_against_the_better_patient_by_patient(runs: SimulatedRuns) -> None:
    runs.add_fracture("twin", strength=1.0, seed=1)
    runs.add_fracture("poor", strength=0.1, seed=2)
    scores, _ = evaluate_runs(["good", "poor", "twin"], runs.config)
    best, *others = sorted(scores, key=lambda name: scores[name]["loss"]["column"])
    assert "behind" not in scores[best]
    for name in others:
        assert scores[name]["behind"]["run"] == best
        value, low, high = scores[name]["behind"]["column"]
        assert low < value < high
        assert value == pytest.approx(scores[name]["loss"]["column"] - scores[best]["loss"]["column"])
    assert f"above that of {best}" in evaluation_text(scores, {})


def test_the_tables_name_what_was_left_out(runs: SimulatedRuns) -> None:
    text = evaluation_text(*evaluate_runs([], runs.config))
    assert "good: 60 studies; loss: column" in text
    assert "left out half: folds 0, 2 missing; train with:" in text
    assert "half" not in evaluation_text(*evaluate_runs(["good"], runs.config))


def test_the_ensemble_is_scored_like_a_run(runs: SimulatedRuns) -> None:
    predictions = runs.add_fracture("good")
    write_table(runs.table(predictions), runs.oof / ENSEMBLE / "oof.csv")
    scores, _ = evaluate_runs([], runs.config)
    # Whichever of the two the best is, the other is not behind it.
    behind = [found.pop("behind") for found in scores.values() if "behind" in found]
    assert [row["column"] for row in behind] == [[0, 0, 0]]
    assert scores[ENSEMBLE] == scores["good"]
    assert list(evaluate_runs([ENSEMBLE], runs.config)[0]) == [ENSEMBLE]


def test_both_layouts_of_a_file_give_the_object_of_the_contract(
    evaluate: Command, runs: SimulatedRuns, tmp_path: Path
) -> None:
    predictions = runs.add_fracture("good")
    table = runs.table(predictions).drop(columns="fold").iloc[::-1]
    asked = table[[STUDY]].merge(runs.table(predictions).melt(STUDY, list(TARGETS), "prediction_type"), on=STUDY)
    asked["row_id"] = asked[STUDY] + "_" + asked["prediction_type"]
    write_table(table.assign(note="x"), tmp_path / "wide.csv")
    write_table(submission_rows(asked, table, dict.fromkeys(TARGETS, 0.5)), tmp_path / "long.csv")
    expected = study_scores(runs.labels, predictions)
    found = evaluate_file(runs.train_csv, tmp_path / "long.csv")
    intervals = found.pop("intervals")
    low, high = intervals["column"]
    assert found == expected
    assert low < expected["loss"]["column"] < high
    done = evaluate("--labels", runs.train_csv, "--predictions", tmp_path / "wide.csv", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == expected | {"intervals": intervals}


def test_thresholds_of_a_file_come_from_a_file(evaluate: Command, runs: SimulatedRuns, tmp_path: Path) -> None:
    predictions = runs.add_fracture("good")
    cuts = {target: 0.1 * number for number, target in enumerate(TARGETS)}
    (tmp_path / "blend.json").write_text(json.dumps({"thresholds": cuts}))
    words = ("--labels", runs.train_csv, "--predictions", runs.oof / "good" / "oof.csv")
    done = evaluate(*words, "--thresholds", tmp_path / "blend.json", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["targets"]
    assert {target: row["threshold"] for target, row in found.items()} == pytest.approx(cuts)
    assert found["patient_overall"]["accuracy"] == pytest.approx(runs.labels[:, 0].mean())
    assert predictions.shape == runs.labels.shape
    table = evaluate(*words)
    assert table.returncode == 0
    assert "patient_overall" in table.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--predictions", "x.csv"], "--labels and --predictions belong together"),
        (["--labels", "x.csv"], "--labels and --predictions belong together"),
        (["good", "--thresholds", "x.json"], "--thresholds belongs to --predictions"),
        (["good", "--labels", "x.csv", "--predictions", "y.csv"], "leave out the run good"),
    ],
)
def test_misuse_exits_with_2(evaluate: Command, words: list[str], told: str) -> None:
    done = evaluate(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_users_errors_exit_with_1_and_name_the_remedy(evaluate: Command, runs: SimulatedRuns, tmp_path: Path) -> None:
    write_table(runs.table(runs.labels).iloc[:5], tmp_path / "few.csv")
    for words, told in (
        ([f"paths.input={tmp_path / 'nowhere'}"], GET_DATA),
        ([runs.words[0], f"paths.oof={tmp_path / 'empty'}"], "python src/train.py --fold all"),
        (["goood", *runs.words], "did you mean 'good'?"),
        (["half", *runs.words], "folds 0, 2 missing"),
        (["--labels", runs.train_csv, "--predictions", tmp_path / "few.csv"], "55 labelled studies have no prediction"),
        (["--labels", runs.train_csv, "--predictions", tmp_path / "none.csv"], "none.csv is missing"),
    ):
        done = evaluate("--json", *words)
        assert (done.returncode, done.stdout) == (1, ""), words
        assert told in done.stderr
        assert "Traceback" not in done.stderr
