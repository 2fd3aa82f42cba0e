"""The runs under oof/: which there are, whether they are whole, and their out-of-fold predictions beside the labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cspine.anatomy import TARGETS
from cspine.config import DatasetConfig
from cspine.errors import UserError, nearest
from cspine.paths import find_dataset, folds_file, need, read_json
from cspine.tables import STUDY, read_folds, read_labels, read_study_table

# What all folds of a run make together, by the first part of its task (fracture/slice, vertebra/image).
RUN_TABLES = {"fracture": "oof.csv", "localise": "boxes.csv", "vertebra": "slices.parquet"}
# Written by ensemble.py: has an oof.csv like a run, but no folds, and is never a member of a blend.
ENSEMBLE = "ensemble"


@dataclass(frozen=True)
class Run:
    """A folder `oof/<name>/` with `fold<k>/{config.json,done.json,...}` and the table of all folds."""

    name: str
    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """The config of its first fold."""
        return read_json(min(self.folder.glob("fold*/config.json")))

    @property
    def kind(self) -> str:
        """`fracture`, `localise` or `vertebra`: what the task predicts."""
        return "fracture" if self.name == ENSEMBLE else self.config["task"].split("/")[0]

    @property
    def table(self) -> Path:
        return self.folder / RUN_TABLES[self.kind]

    def done(self) -> dict[int, dict[str, Any]]:
        """The accounts (done.json) of the folds that are trained."""
        folders = [self.folder / f"fold{fold}" for fold in range(self.config["folds"]["count"])]
        files = {fold: folder / "done.json" for fold, folder in enumerate(folders)}
        return {fold: read_json(file) for fold, file in files.items() if file.exists()}

    def data(self) -> str:
        """The hash of the data on which its folds were trained (`a, b` where they differ), from their data.json."""
        files = [self.folder / f"fold{fold}" / "data.json" for fold in self.done()]
        return ", ".join(sorted({read_json(file)["hash"] if file.exists() else "unknown" for file in files}))

    def lacks(self) -> str | None:
        """What is missing, and the command that makes it; None if the run is whole."""
        if self.name == ENSEMBLE:
            return None if self.table.exists() else f"{self.table} is missing; make it with: python src/ensemble.py"
        done, command = self.done(), f"python src/train.py --config <the config named {self.name}> --fold"
        missing = [fold for fold in range(self.config["folds"]["count"]) if fold not in done]
        if missing:
            which = f"{'folds' if len(missing) > 1 else 'fold'} {', '.join(map(str, missing))}"
            fold = str(missing[0]) if len(missing) == 1 else "all"
            return f"{which} missing; train with: {command} {fold} --resume"
        if len({account["config_hash"] for account in done.values()}) > 1:
            return f"its folds were trained with different configs; train them alike: {command} all --restart"
        if "," in self.data():
            return (
                f"its folds were trained on different data ({self.data()}); train them alike: {command} all --restart"
            )
        return None if self.table.exists() else f"{self.table.name} is missing; make it with: {command} all"


@dataclass(frozen=True)
class OutOfFold:
    """Studies in the order of folds.csv, with what is true and what runs predicted of them."""

    uids: tuple[str, ...]
    folds: np.ndarray  # (n,)
    labels: np.ndarray  # (n, 8)
    predictions: dict[str, np.ndarray]  # run -> (n, 8)


def all_runs(oof: Path, kind: str | None = None) -> list[Run]:
    """The runs of a kind (None: of every kind) by name, whole or not; the ensemble is not among them."""
    names = sorted({file.parent.parent.name for file in oof.glob("*/fold*/config.json")})
    runs = [Run(name, oof / name) for name in names if name != ENSEMBLE]
    return [run for run in runs if run.kind in ([kind] if kind else RUN_TABLES)]


def complete_runs(oof: Path, kind: str | None = None) -> list[Run]:
    """The runs of a kind that have every fold and the table of all."""
    return [run for run in all_runs(oof, kind) if run.lacks() is None]


def find_runs(oof: Path, names: Sequence[str]) -> list[Run]:
    """The runs of these names, each once; `ensemble` is allowed.

    Raises UserError for an unknown name with the nearest known one, and for an incomplete run with what it lacks.
    """
    known = {run.name: run for run in all_runs(oof)}
    if (oof / ENSEMBLE / "oof.csv").exists():
        known[ENSEMBLE] = Run(ENSEMBLE, oof / ENSEMBLE)
    for name in names:
        if not known:
            raise UserError(f"{oof}/ holds no run; train some with: python src/train.py --fold all")
        if name not in known:
            raise UserError(f"there is no run {name} in {oof}/; {nearest(name, known)}")
        if lack := known[name].lacks():
            raise UserError(f"{oof / name} is incomplete: {lack}")
    return [known[name] for name in dict.fromkeys(names)]


def require_same_data(runs: Sequence[Run]) -> None:
    """Raises UserError where runs were trained on different data, by the fingerprints in their folders."""
    names: dict[str, list[str]] = {}
    for run in runs:
        names.setdefault(run.data(), []).append(run.name)
    if len(names) > 1:
        groups = "; ".join(f"{', '.join(group)} on {data}" for data, group in names.items())
        raise UserError(
            f"these runs were trained on different data ({groups}; see data.json in their folds), so they cannot be "
            "blended: name runs of one data set, or train the others again with --restart"
        )


def read_out_of_fold(runs: Sequence[Run], config: DatasetConfig) -> OutOfFold:
    """The predictions of fracture runs for every study of folds.csv, and the labels of the dataset.

    Raises UserError where a run stands on other folds or other studies than folds.csv and train.csv hold.
    """
    label_file = find_dataset(config) / "train.csv"
    labels = read_labels(label_file).set_index(STUDY)
    folds = read_folds(need(folds_file(config), "python src/prepare.py"))
    unknown = folds.loc[~folds[STUDY].isin(labels.index), STUDY]
    if len(unknown):
        raise UserError(
            f"{folds_file(config)}: study {unknown.iloc[0]} is not in {label_file}; "
            "do data.root and paths.input name the same data?"
        )
    return OutOfFold(
        uids=tuple(folds[STUDY]),
        folds=folds["fold"].to_numpy(),
        labels=labels.loc[folds[STUDY], list(TARGETS)].to_numpy(),
        predictions={run.name: _predictions(run, folds, folds_file(config)) for run in runs},
    )


def _predictions(run: Run, folds: pd.DataFrame, file: Path) -> np.ndarray:
    table = read_study_table(run.table).set_index(STUDY)
    different = set(table.index) ^ set(folds[STUDY])
    if different:
        raise UserError(
            f"{run.table} and {file} do not hold the same studies, for example {min(different)}; "
            "do paths.oof and paths.input belong together?"
        )
    if "fold" not in table:
        raise UserError(f"{run.table}: the column 'fold' is missing; train the run again with --restart")
    table = table.loc[folds[STUDY]]
    moved = np.flatnonzero(table["fold"].to_numpy() != folds["fold"].to_numpy())
    if len(moved):
        row = moved[0]
        raise UserError(
            f"{run.table}: study {table.index[row]} is in fold {table['fold'].iloc[row]}, in {file} in fold "
            f"{folds['fold'].iloc[row]}; the run stands on other folds, train it again with --restart"
        )
    return table[list(TARGETS)].to_numpy(float)
