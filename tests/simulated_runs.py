"""Labels, folds and out-of-fold tables of runs that were never trained, written as train.py leaves them."""

import json
import runpy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cspine.anatomy import LEVELS, TARGETS
from cspine.config import Data, DatasetConfig, Paths
from cspine.tables import STUDY, write_table

# Positives of the 2,019 studies of RSNA, in the order of TARGETS.
RSNA_STUDIES, RSNA_POSITIVES = 2019, (961, 146, 285, 73, 108, 162, 277, 393)
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


Command = Callable[..., Done]


def command(script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a script in this process, which saves the seconds that importing numba and pandas takes."""

    def call(*words: str | Path) -> Done:
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", [script, *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(script, run_name="__main__")
        captured = capsys.readouterr()
        return Done(int(ended.value.code or 0), captured.out, captured.err)

    return call


def random_labels(studies: int, seed: int = 0) -> np.ndarray:
    """(studies, 8) with about the levels' real rates; the patient is their union."""
    rates = np.array(RSNA_POSITIVES[1:]) / RSNA_STUDIES
    levels = np.random.default_rng(seed).uniform(size=(studies, 7)) < rates
    return np.column_stack([levels.any(axis=1), levels]).astype(int)


def random_predictions(labels: np.ndarray, strength: float, seed: int = 0) -> np.ndarray:
    """Probabilities whose logits are normal about `strength` times the label, 0 being noise."""
    noise = np.random.default_rng(seed).normal(size=labels.shape)
    return 1 / (1 + np.exp(-(noise + strength * (2 * labels - 1) - 1)))


class SimulatedRuns:
    """A dataset's tables under `folder`/input and runs under `folder`/oof."""

    def __init__(self, folder: Path, studies: int = 60, folds: int = 3, dataset: str = "phantom") -> None:
        self.folder, self.oof, self.fold_count = folder, folder / "oof", folds
        self.labels = random_labels(studies)
        self.uids = [f"1.2.826.0.1.3680043.{number}" for number in range(studies)]
        self.folds = np.arange(studies) % folds
        self.train_csv = folder / "input" / dataset / "train.csv"
        write_table(self.table(self.labels).drop(columns="fold"), self.train_csv)
        write_table(pd.DataFrame({STUDY: self.uids, "fold": self.folds}), folder / "input" / "folds.csv")
        self.config = DatasetConfig(
            paths=Paths(input=str(folder / "input"), oof=str(self.oof)), data=Data(root=str(self.train_csv.parent))
        )

    @property
    def words(self) -> list[str]:
        """The overrides that point a command here."""
        return [f"paths.input={self.folder / 'input'}", f"paths.oof={self.oof}"]

    def table(self, values: np.ndarray) -> pd.DataFrame:
        made = pd.DataFrame(values, columns=list(TARGETS))
        made.insert(0, STUDY, self.uids)
        made.insert(1, "fold", self.folds)
        return made

    def add_fracture(self, name: str, strength: float = 1.0, seed: int = 0) -> np.ndarray:
        """A whole run; its predictions in the order of the labels. The table has its rows fold by fold."""
        predictions = random_predictions(self.labels, strength, seed)
        for fold in range(self.fold_count):
            self.add_fold(name, "fracture/slice", fold)
        write_table(self.table(predictions).sort_values("fold", kind="stable"), self.oof / name / "oof.csv")
        return predictions

    def add_fold(self, name: str, task: str, fold: int, config_hash: str = "abc", data: str = "d1") -> Path:
        folder = self.oof / name / f"fold{fold}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"task": task, "folds": {"count": self.fold_count}}))
        (folder / "done.json").write_text(json.dumps({"config_hash": config_hash, "score": {}}))
        (folder / "data.json").write_text(json.dumps({"hash": data}))
        return folder

    def add_vertebra(self, name: str) -> pd.DataFrame:
        """A whole run on the first four studies of eight slices; the first two have masks."""
        for fold in range(self.fold_count):
            self.add_fold(name, "vertebra/image", fold)
        rng = np.random.default_rng(0)
        table = pd.DataFrame([(uid, n, -float(n)) for uid in self.uids[:4] for n in range(1, 9)])
        table.columns = pd.Index([STUDY, "file_number", "z_mm"])
        table[list(LEVELS)] = rng.uniform(size=(len(table), 7))
        has_mask = table[STUDY].isin(self.uids[:2]).to_numpy()
        table["fold"] = np.where(has_mask, 0, -1)
        table["source"] = np.where(has_mask, "oof", "mean")
        truth = rng.integers(0, 2, (len(table), 7)).astype(float)
        table[[f"{level}_true" for level in LEVELS]] = np.where(has_mask[:, None], truth, np.nan)
        write_table(table, self.oof / name / "slices.parquet")
        return table
