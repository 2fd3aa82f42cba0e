"""Many small trainings on "which levels are on a slice" as the rows of one table, each trained once.

What a comparison asks (comparison.py, ablation.py) is which configs, on which slices; what a cell is, and that a row
that stands in the table is not trained again, is here.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from cspine.anatomy import LEVELS
from cspine.config import Config, config_hash
from cspine.data.cache import CachedStudy
from cspine.data.datasets import SliceSamples
from cspine.data.fingerprint import read_fingerprint
from cspine.engine.distributed import World
from cspine.engine.loop import fit, predict
from cspine.errors import UserError
from cspine.tables import STUDY, read_csv, write_table
from cspine.tasks.base import folds_in_use, open_studies, run_folder, starting_model

KEYS = ("config_hash", "data")
MEASURES = ("pretrained", "image_size_px", "training_slices", "held_out_slices", "constant", "accuracy", "seconds")


@dataclass(frozen=True)
class Cell:
    """One training: the values of the table's naming columns, in their order, and the config."""

    names: tuple[str | int, ...]
    config: Config


@dataclass(frozen=True)
class Slices:
    """The slices of all studies with masks: study and index (n,), the fold of each study, presence (n, 7)."""

    studies: list[CachedStudy]
    study: np.ndarray
    index: np.ndarray
    fold: np.ndarray
    presence: np.ndarray

    def of_fold(self, fold: int) -> np.ndarray:
        """Which slices (n,) belong to the fold's studies."""
        return self.fold[self.study] == fold


def masked_slices(config: Config, uids: Sequence[str] | None = None) -> Slices:
    """All slices of the studies with masks, or `data.slices_per_study` of each, evenly spread; of `uids` where given.

    Raises UserError where no study has a mask.
    """
    folds = folds_in_use(config)
    fold_of = dict(zip(folds[STUDY], folds["fold"], strict=True))
    chosen_folds = folds if uids is None else folds[folds[STUDY].isin(uids)]
    studies = [study for study in open_studies(config, chosen_folds) if study.presence is not None]
    if not studies:
        raise UserError(f"{config.name}: no study has a mask; there is nothing to compare trainings on")
    chosen = [_spread(len(study.geometry.z_mm), config.data.slices_per_study) for study in studies]
    presence = [
        study.presence[index] for study, index in zip(studies, chosen, strict=True) if study.presence is not None
    ]
    study = np.repeat(np.arange(len(studies)), [len(index) for index in chosen])
    fold = np.array([fold_of[item.uid] for item in studies])
    return Slices(studies, study, np.concatenate(chosen), fold, np.concatenate(presence))


def _spread(count: int, limit: int | None) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(limit or count, count)).round().astype(int))


class SplitTask:
    """What the training loop asks of a task, for one cell; `held_out` (n,) says which slices are not trained on."""

    def __init__(self, config: Config, slices: Slices, held_out: np.ndarray) -> None:
        self.config, self.slices, self.held_out = config, slices, held_out
        if not held_out.any() or held_out.all():
            raise UserError(f"{config.name}: too few studies with masks to split into training and held-out slices")

    def training_samples(self) -> SliceSamples:
        return self._samples(~self.held_out, augmented=True)

    def prediction_samples(self) -> SliceSamples:
        return self._samples(self.held_out, augmented=False)

    def model(self) -> nn.Module:
        return starting_model(self.config, None, len(LEVELS))

    def loss(self, outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return binary_cross_entropy_with_logits(outputs, batch["presence"])

    def accuracy(self, logits: np.ndarray) -> float:
        """Mean over held-out slices and levels of "presence right" at 0.5, the report's measure."""
        return float(((logits > 0) == self.slices.presence[self.held_out]).mean())

    def constant_accuracy(self) -> float:
        """Accuracy of answering, on every held-out slice, what most training slices show level by level."""
        usual = self.slices.presence[~self.held_out].mean(axis=0) > 0.5
        return float((usual == self.slices.presence[self.held_out]).mean())

    def _samples(self, chosen: np.ndarray, augmented: bool) -> SliceSamples:
        return SliceSamples(
            self.slices.studies,
            study=self.slices.study[chosen],
            index=self.slices.index[chosen],
            # The slices are chosen already; an epoch visits each.
            settings=replace(self.config.data, slices_per_study=None),
            augment=self.config.augment if augmented else None,
            targets={"presence": self.slices.presence[chosen].astype(np.float32)},
        )


class CellTable:
    """oof/<run>/<file>.csv, a row a cell; a row is known by its names, the hash of its config, and the data's."""

    def __init__(self, config: Config, file: str, names: tuple[str, ...]) -> None:
        self.folder = run_folder(config)
        self.file = self.folder / file
        self.keys = (*names, *KEYS)
        self.columns = (*self.keys, *MEASURES)
        self.data = read_fingerprint(config)["hash"]
        self.asked: list[tuple] = []

    def run(self, cell: Cell, slices: Slices, held_out: np.ndarray, world: World) -> None:
        """Train the cell, measure it on the `held_out` slices (n,), unless its row is there already."""
        key = (*cell.names, config_hash(cell.config), self.data)
        self.asked.append(key)
        if key in set(self._keys(self._read())):
            return
        folder = self.folder / "cells" / "-".join(map(str, cell.names))
        row = dict(zip(self.keys, key, strict=True)) | train_cell(cell, slices, held_out, folder, world)
        if world.is_main:
            write_table(
                pd.concat([self._read(), pd.DataFrame([row])], ignore_index=True)[list(self.columns)], self.file
            )
        world.barrier()

    def rows(self) -> pd.DataFrame:
        """The rows of the cells that were asked for, in that order."""
        table = self._read()
        place = {key: number for number, key in enumerate(self._keys(table))}
        return table.iloc[[place[key] for key in self.asked]].reset_index(drop=True)

    def _read(self) -> pd.DataFrame:
        return read_csv(self.file, self.columns) if self.file.exists() else pd.DataFrame(columns=list(self.columns))

    def _keys(self, table: pd.DataFrame) -> Iterator[tuple]:
        return table[list(self.keys)].itertuples(index=False, name=None)


def train_cell(cell: Cell, slices: Slices, held_out: np.ndarray, folder: Path, world: World) -> dict[str, object]:
    """Train one cell in its folder and measure it: the columns MEASURES."""
    config = cell.config
    if world.is_main:
        # Of a cell that was interrupted; it begins anew, because its seconds are to be measured.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    world.barrier()
    task = SplitTask(config, slices, held_out)
    model = fit(task, config, folder, world)
    accuracy = task.accuracy(predict(model, task.prediction_samples(), config, world))
    if world.is_main:
        (folder / "last.ckpt").unlink()
        print(f"{', '.join(map(str, cell.names))}: accuracy {accuracy:.4f}", flush=True)
    return {
        "pretrained": config.model.pretrained or "none",
        "image_size_px": config.data.image_size_px,
        "training_slices": int((~held_out).sum()),
        "held_out_slices": int(held_out.sum()),
        "constant": round(task.constant_accuracy(), 6),
        "accuracy": round(accuracy, 6),
        "seconds": round(float(read_csv(folder / "metrics.csv", ("seconds",))["seconds"].sum()), 2),
    }
