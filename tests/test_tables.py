"""Every table is verified at the door; errors name the file, the study and the column."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cspine.anatomy import TARGETS
from cspine.errors import UserError
from cspine.tables import (
    STUDY,
    match_studies,
    read_csv,
    read_labels,
    read_predictions,
    read_study_table,
    read_test_rows,
    submission_rows,
    write_study_table,
    write_table,
)


def table(values: np.ndarray | None = None, **changes: object) -> pd.DataFrame:
    values = np.full((2, 8), 0.25) if values is None else values
    made = pd.DataFrame(values, columns=list(TARGETS))
    made.insert(0, STUDY, [f"1.2.{number}" for number in range(len(values))])
    return made.assign(**changes)


def rows(uids: list[str]) -> pd.DataFrame:
    return pd.DataFrame(
        [(f"{uid}_{target}", uid, target) for uid in uids for target in TARGETS],
        columns=["row_id", STUDY, "prediction_type"],
    )


@given(st.lists(st.lists(st.floats(0, 1), min_size=8, max_size=8), min_size=1, max_size=5))
def test_a_study_table_comes_back_to_the_last_bit(values: list[list[float]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "oof.csv"
        write_study_table(table(np.array(values)), file)
        assert np.array_equal(read_study_table(file)[list(TARGETS)].to_numpy(), np.array(values))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"C3": [0.1, 1.2]}, "study 1.2.1, column C3"),
        ({"C3": [0.1, np.nan]}, "study 1.2.1, column C3"),
        ({"C3": [0.1, -1e-9]}, "study 1.2.1, column C3"),
        ({"C3": ["low", 0.1]}, "study 1.2.0, column C3"),
        ({STUDY: ["1.2.0", "1.2.0"]}, "study 1.2.0 stands twice"),
    ],
)
def test_what_is_no_probability_is_refused(tmp_path: Path, changes: dict, told: str) -> None:
    write_table(table(**changes), tmp_path / "x.csv")
    with pytest.raises(UserError, match=told):
        read_study_table(tmp_path / "x.csv")


def test_labels_are_zeros_and_ones_in_known_columns(tmp_path: Path) -> None:
    file = tmp_path / "train.csv"
    write_table(table(np.eye(8)[:2]), file)
    assert read_labels(file)[list(TARGETS)].to_numpy().tolist() == np.eye(8, dtype=int)[:2].tolist()
    write_table(table(np.eye(8)[:2], C7=[0, 2]), file)
    with pytest.raises(UserError, match=r"study 1\.2\.1, column C7: must be 0 or 1"):
        read_labels(file)
    write_table(table().rename(columns={"C7": "c7"}), file)
    with pytest.raises(UserError, match="column 'C7' is missing"):
        read_labels(file)
    with pytest.raises(UserError, match=r"missing; download .* or make a phantom"):
        read_labels(tmp_path / "nothing.csv")


def test_both_layouts_of_predictions_are_read(tmp_path: Path) -> None:
    expected = table(np.linspace(0, 1, 16).reshape(2, 8))
    submission = submission_rows(rows(["1.2.1", "1.2.0"]), expected, dict.fromkeys(TARGETS, 0.5))
    write_table(expected, tmp_path / "wide.csv")
    write_table(submission, tmp_path / "long.csv")
    for name in ("wide.csv", "long.csv"):
        found = match_studies(expected, read_predictions(tmp_path / name), name)
        assert np.array_equal(found[list(TARGETS)].to_numpy(), expected[list(TARGETS)].to_numpy())


@pytest.mark.parametrize(
    ("row", "told"), [("1.2.0_C8", "not <uid>_<target>"), ("1.2.0_C1", "stands twice"), ("1.2.9_C1", "not a probab")]
)
def test_a_submission_with_odd_rows_is_refused(tmp_path: Path, row: str, told: str) -> None:
    submission = submission_rows(rows(["1.2.0"]), table(), dict.fromkeys(TARGETS, 0.5))
    write_table(pd.concat([submission, pd.DataFrame({"row_id": [row], "fractured": [0.5]})]), tmp_path / "s.csv")
    with pytest.raises(UserError, match=told):
        read_predictions(tmp_path / "s.csv")


def test_a_submission_has_every_row_asked_for_once_whatever_is_known() -> None:
    priors = {target: 0.01 * number for number, target in enumerate(TARGETS)}
    asked = rows(["1.2.1", "1.2.77"]).iloc[[3, 0, 8, 3]]
    found = submission_rows(asked, table(), priors)
    assert found["row_id"].tolist() == ["1.2.1_C3", "1.2.1_patient_overall", "1.2.77_patient_overall"]
    assert found["fractured"].tolist() == [0.25, 0.25, 0.0]


def test_unknown_prediction_type_is_named(tmp_path: Path) -> None:
    write_table(rows(["1.2.0"]).assign(prediction_type="C9"), tmp_path / "test.csv")
    with pytest.raises(UserError, match="prediction_type 'C9'"):
        read_test_rows(tmp_path / "test.csv")


def test_a_study_without_prediction_is_named() -> None:
    with pytest.raises(UserError, match=r"1 labelled studies have no prediction, the first 1\.2\.1"):
        match_studies(table(), table().iloc[:1], "x.csv")


def test_a_hash_of_digits_stays_text(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text("config_hash,data,seconds\n012345678901,1234e5678901,2\n")
    assert read_csv(file, ("config_hash", "data")).loc[0].tolist() == ["012345678901", "1234e5678901", 2]
