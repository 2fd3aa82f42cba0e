"""The columns of every CSV and Parquet file, and how each is read, verified and written."""

from pathlib import Path

import numpy as np
import pandas as pd

from cspine.anatomy import LEVELS, TARGETS
from cspine.errors import UserError, nearest
from cspine.paths import GET_DATA, atomic

STUDY = "StudyInstanceUID"
# Never numbers, although they may look like one: a hash can be all digits.
TEXT = (STUDY, "row_id", "config_hash", "data")
BOX_COLUMNS = ("x", "y", "width", "height", "slice_number")
SLICE_KEYS = (STUDY, "file_number", "z_mm")
# What a detector finds, `oof/<run>/boxes.csv`: as in the competition's table, with a score and perhaps a level.
FOUND_BOXES = (STUDY, "file_number", "x", "y", "width", "height", "score", "level")
# Beside C1..C7 in a slice table: as the model gave them, as the mask has them, and on the best path.
RAW, TRUTH, SEEN = (tuple(f"{level}_{kind}" for level in LEVELS) for kind in ("raw", "true", "seen"))


def read_csv(file: Path, columns: tuple[str, ...], remedy: str = "") -> pd.DataFrame:
    """A CSV file with at least these columns; UIDs and hashes are text. Raises UserError naming file and column."""
    if not file.is_file():
        raise UserError(f"{file} is missing" + (f"; {remedy}" if remedy else ""))
    try:
        table = pd.read_csv(file, dtype=dict.fromkeys(TEXT, str))
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not a readable CSV file ({error})") from error
    require_columns(table, columns, str(file))
    return table


def require_columns(table: pd.DataFrame, columns: tuple[str, ...], where: str) -> None:
    for column in columns:
        if column not in table:
            raise UserError(f"{where}: the column '{column}' is missing; {nearest(column, map(str, table.columns))}")


def read_labels(file: Path) -> pd.DataFrame:
    """`train.csv`: one row a study, the eight targets as 0 or 1."""
    table = read_csv(file, (STUDY, *TARGETS), GET_DATA)
    _refuse_repeats(table, file)
    bad = ~table[list(TARGETS)].isin([0, 1])
    if bad.to_numpy().any():
        row, column = np.argwhere(bad.to_numpy())[0]
        raise UserError(f"{file}: study {table[STUDY].iloc[row]}, column {TARGETS[column]}: must be 0 or 1")
    return table.astype(dict.fromkeys(TARGETS, int))


def read_boxes(file: Path) -> pd.DataFrame:
    """`train_bounding_boxes.csv`: boxes in pixels of the original slice; `slice_number` is the file number."""
    table = read_csv(file, (STUDY, *BOX_COLUMNS))
    numbers = table[list(BOX_COLUMNS)].apply(pd.to_numeric, errors="coerce")
    bad = np.argwhere(~np.isfinite(numbers.to_numpy(float)))
    if len(bad):
        row, column = bad[0]
        raise UserError(f"{file}: study {table[STUDY].iloc[row]}, column {BOX_COLUMNS[column]}: must be a number")
    return table.assign(**{column: numbers[column] for column in BOX_COLUMNS})


def read_found_boxes(file: Path) -> pd.DataFrame:
    """`boxes.csv` of a detector: a box a row, score within 0 and 1, level one of C1..C7 or empty."""
    table = read_csv(file, FOUND_BOXES)
    table["level"] = table["level"].fillna("").astype(str)
    numbers = table[list(FOUND_BOXES[1:-1])].apply(pd.to_numeric, errors="coerce")
    sound = np.isfinite(numbers.to_numpy(float)).all(axis=1) & (numbers[["width", "height"]] > 0).all(axis=1)
    sound &= numbers["score"].between(0, 1) & table["level"].isin(["", *LEVELS])
    if not sound.all():
        row = table[~sound].iloc[0]
        raise UserError(
            f"{file}: study {row[STUDY]}, file_number {row['file_number']}: a box needs numbers, width and height "
            "above 0, a score within 0 and 1, and a level of C1..C7 or none"
        )
    return table


def read_study_table(file: Path) -> pd.DataFrame:
    """Probabilities of the eight targets, a row a study. Raises UserError for NaN, values outside [0, 1], repeats."""
    table = read_csv(file, (STUDY, *TARGETS))
    verify_probabilities(table, file)
    return table


def verify_probabilities(table: pd.DataFrame, where: Path | str) -> None:
    _refuse_repeats(table, where)
    values = table[list(TARGETS)].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    bad = np.argwhere(~((values >= 0) & (values <= 1)))
    if len(bad):
        row, column = bad[0]
        raise UserError(
            f"{where}: study {table[STUDY].iloc[row]}, column {TARGETS[column]}: "
            f"{table[TARGETS[column]].iloc[row]!r} is not a probability"
        )


def read_predictions(file: Path) -> pd.DataFrame:
    """Predictions in the `train.csv` layout, or a submission (`row_id,fractured`) turned into it."""
    if "row_id" not in read_csv(file, ()).columns:
        return read_study_table(file)
    rows = read_csv(file, ("row_id", "fractured"))
    rows[[STUDY, "target"]] = rows["row_id"].str.extract(rf"^(.*)_({'|'.join(TARGETS)})$")
    if rows[STUDY].isna().any():
        raise UserError(f"{file}: row_id {rows.loc[rows[STUDY].isna(), 'row_id'].iloc[0]!r} is not <uid>_<target>")
    if rows["row_id"].duplicated().any():
        raise UserError(f"{file}: row_id {rows.loc[rows['row_id'].duplicated(), 'row_id'].iloc[0]!r} stands twice")
    table = rows.pivot(index=STUDY, columns="target", values="fractured").reindex(columns=TARGETS).reset_index()
    verify_probabilities(table, file)
    return table


def match_studies(labels: pd.DataFrame, predictions: pd.DataFrame, where: Path | str) -> pd.DataFrame:
    """The predictions in the order of the labels; raises UserError for a study without a prediction."""
    missing = labels.loc[~labels[STUDY].isin(predictions[STUDY]), STUDY]
    if len(missing):
        raise UserError(f"{where}: {len(missing)} labelled studies have no prediction, the first {missing.iloc[0]}")
    return predictions.set_index(STUDY).loc[labels[STUDY]].reset_index()


def read_test_rows(file: Path) -> pd.DataFrame:
    """`test.csv`: the rows asked for, whatever lies in test_images."""
    table = read_csv(file, ("row_id", STUDY, "prediction_type"))
    unknown = table.loc[~table["prediction_type"].isin(TARGETS), "prediction_type"]
    if len(unknown):
        raise UserError(f"{file}: prediction_type {unknown.iloc[0]!r}; {nearest(str(unknown.iloc[0]), TARGETS)}")
    return table


def read_folds(file: Path) -> pd.DataFrame:
    """`folds.csv`: StudyInstanceUID, fold."""
    table = read_csv(file, (STUDY, "fold"), "make it with: python src/prepare.py")
    _refuse_repeats(table, file)
    return table


def read_slices(file: Path) -> pd.DataFrame:
    """A slice table: StudyInstanceUID, file_number, z_mm (cranial is greater), C1..C7; other columns may follow."""
    table = pd.read_parquet(file)
    require_columns(table, (*SLICE_KEYS, *LEVELS), str(file))
    return table


def write_table(table: pd.DataFrame, file: Path) -> None:
    """Write a table atomically, as CSV or Parquet by the file's suffix."""
    with atomic(file) as temporary:
        if file.suffix == ".parquet":
            table.to_parquet(temporary, index=False)
        else:
            table.to_csv(temporary, index=False, lineterminator="\n")


def write_study_table(table: pd.DataFrame, file: Path) -> None:
    """Write `StudyInstanceUID[,fold],patient_overall,C1,...,C7` after verifying it."""
    verify_probabilities(table, file)
    columns = [STUDY, *(["fold"] if "fold" in table else []), *TARGETS]
    write_table(table[columns], file)


def submission_rows(rows: pd.DataFrame, table: pd.DataFrame, priors: dict[str, float]) -> pd.DataFrame:
    """`row_id,fractured` for the rows asked for, in their order; a study not in `table` gets the priors."""
    known = table.set_index(STUDY)[list(TARGETS)].stack().to_dict()
    asked = rows.drop_duplicates("row_id")
    values = [
        known.get((study, target), priors[target])
        for study, target in zip(asked[STUDY], asked["prediction_type"], strict=True)
    ]
    return pd.DataFrame({"row_id": asked["row_id"].to_numpy(), "fractured": values})


def _refuse_repeats(table: pd.DataFrame, where: Path | str) -> None:
    repeated = table.loc[table[STUDY].duplicated(), STUDY]
    if len(repeated):
        raise UserError(f"{where}: study {repeated.iloc[0]} stands twice")
