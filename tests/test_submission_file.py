"""The file is whole and valid at every moment, and the priors need nothing that takes long to import."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cspine.anatomy import TARGETS
from cspine.errors import UserError
from cspine.submission_file import Row, SubmissionFile, read_priors, read_rows

ROOT = Path(__file__).parents[1]
PRIORS = {target: 0.1 + 0.05 * number for number, target in enumerate(TARGETS)}
ROWS = [Row(f"{uid}_{target}", uid, target) for uid, target in (("b", "C3"), ("a", "patient_overall"), ("b", "C1"))]


def content(file: Path) -> dict[str, float]:
    with file.open() as stream:
        return {line["row_id"]: float(line["fractured"]) for line in csv.DictReader(stream)}


def test_rows_keep_their_order_and_come_once(tmp_path: Path) -> None:
    file = tmp_path / "test.csv"
    lines = [f"{row.row_id},{row.uid},{row.target}" for row in (*ROWS, ROWS[0])]
    file.write_text("\n".join(["row_id,StudyInstanceUID,prediction_type", *lines]))
    assert read_rows(file) == ROWS


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("row_id,StudyInstanceUID\nx,y", "prediction_type"),
        ("row_id,StudyInstanceUID,prediction_type\nx,y,C8", "did you mean|allowed"),
    ],
)
def test_a_test_csv_of_another_kind_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "test.csv").write_text(text)
    with pytest.raises(UserError, match=told):
        read_rows(tmp_path / "test.csv")


def test_priors_first_then_what_is_put_in(tmp_path: Path) -> None:
    output = tmp_path / "s.csv"
    file = SubmissionFile(output, ROWS, PRIORS)
    priors = {row.row_id: PRIORS[row.target] for row in ROWS}
    assert content(output) == priors
    assert list(content(output)) == [row.row_id for row in ROWS]
    assert file.uids == ["b", "a"]
    file.put("b", np.linspace(0, 1, 8).tolist())
    assert content(output) == priors
    file.write()
    assert content(output) == {**priors, "b_C3": pytest.approx(3 / 7), "b_C1": pytest.approx(1 / 7)}
    assert [path.name for path in tmp_path.iterdir()] == ["s.csv"]


@pytest.mark.parametrize("row", [[0.5] * 7, [0.5] * 7 + [float("nan")], [0.5] * 7 + [1.1]])
def test_what_is_no_probability_leaves_the_priors(tmp_path: Path, row: list[float]) -> None:
    file = SubmissionFile(tmp_path / "s.csv", ROWS, PRIORS)
    with pytest.raises(ValueError, match="no eight probabilities"):
        file.put("a", row)
    file.write()
    assert content(tmp_path / "s.csv")["a_patient_overall"] == PRIORS["patient_overall"]


def test_a_bundle_without_priors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"blend": {}}')
    with pytest.raises(UserError, match=r"python kernels/build\.py"):
        read_priors(tmp_path / "manifest.json")
    with pytest.raises(UserError, match="the prior of C7"):
        SubmissionFile(tmp_path / "s.csv", ROWS, {**PRIORS, "C7": float("nan")})
    assert not (tmp_path / "s.csv").exists()


def test_the_priors_wait_for_no_slow_import() -> None:
    code = "import cspine.offline, sys; print(*{'torch', 'numpy', 'pandas', 'scipy'} & set(sys.modules))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": "src"}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
