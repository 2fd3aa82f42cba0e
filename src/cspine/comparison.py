"""Backbones compared as the report did it, and without its leak (README, the method, phase 2).

`plain` splits the slices of the studies with masks 80/20, so that neighbouring slices of one patient stand on both
sides; `group` holds out the studies of a fold of folds.csv. A cell is one training: a backbone, a protocol, a fold.
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
from cspine.data.slices import channels
from cspine.engine.distributed import World
from cspine.engine.loop import fit, predict
from cspine.errors import UserError
from cspine.models.backbones import REPORT, usable_size
from cspine.tables import STUDY, read_csv, write_table
from cspine.tasks.base import folds_in_use, open_studies, run_folder, starting_model

PLAIN, GROUP = "plain", "group"
HELD_OUT_SHARE = 0.2
FINALISTS = 5
KEYS = ("backbone", "protocol", "fold", "config_hash", "data")
COLUMNS = (
    *KEYS,
    "pretrained",
    "image_size_px",
    "training_slices",
    "held_out_slices",
    "constant",
    "accuracy",
    "seconds",
)


@dataclass(frozen=True)
class Cell:
    """One training: `backbone` by its report's name or the factory's."""

    backbone: str
    protocol: str
    fold: int
    config: Config


@dataclass(frozen=True)
class Slices:
    """The slices of all studies with masks: study and index (n,), the fold of each study, presence (n, 7)."""

    studies: list[CachedStudy]
    study: np.ndarray
    index: np.ndarray
    fold: np.ndarray
    presence: np.ndarray


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


def masked_slices(config: Config) -> Slices:
    """All slices of the studies with masks, or `data.slices_per_study` of each, evenly spread.

    Raises UserError where no study has a mask.
    """
    folds = folds_in_use(config)
    fold_of = dict(zip(folds[STUDY], folds["fold"], strict=True))
    studies = [study for study in open_studies(config, folds) if study.presence is not None]
    if not studies:
        raise UserError(f"{config.name}: no study has a mask; backbones cannot be compared")
    chosen = [_spread(len(study.geometry.z_mm), config.data.slices_per_study) for study in studies]
    presence = [
        study.presence[index] for study, index in zip(studies, chosen, strict=True) if study.presence is not None
    ]
    study = np.repeat(np.arange(len(studies)), [len(index) for index in chosen])
    fold = np.array([fold_of[item.uid] for item in studies])
    return Slices(studies, study, np.concatenate(chosen), fold, np.concatenate(presence))


def _spread(count: int, limit: int | None) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(limit or count, count)).round().astype(int))


def held_out(slices: Slices, protocol: str, fold: int, seed: int) -> np.ndarray:
    """Which slices (n,) a cell does not train on: those of the fold's studies, or a random fifth of all slices."""
    if protocol == GROUP:
        return slices.fold[slices.study] == fold
    order = np.random.default_rng(seed).permutation(len(slices.study))
    chosen = np.zeros(len(order), bool)
    chosen[order[: round(HELD_OUT_SHARE * len(order))]] = True
    return chosen


def make_cell(config: Config, backbone: str, protocol: str, fold: int) -> Cell:
    model = replace(config.model, backbone=REPORT.get(backbone, backbone))
    return Cell(backbone, protocol, fold, replace(config, name=f"{config.name}-{model.backbone}", model=model))


def at_usable_size(config: Config, backbone: str) -> Config:
    """The config, with the least image size that a backbone takes where it does not take the config's."""
    settings = replace(config.model, backbone=REPORT.get(backbone, backbone))
    size_px = usable_size(settings, channels(config), config.data.image_size_px)
    return replace(config, data=replace(config.data, image_size_px=size_px))


def compare(config: Config, backbones: Sequence[str], world: World, quick: bool = False) -> pd.DataFrame:
    """Train every cell that comparison.csv lacks and return the rows of this config: COLUMNS.

    All backbones by the plain split and by group fold 0; unless `quick`, the FINALISTS best of the plain split by the
    other group folds as well. A row is written as soon as its cell is done.
    """
    slices = masked_slices(config)
    folds = sorted(set(slices.fold.tolist()))
    table = ComparisonTable(config)
    configs = {backbone: at_usable_size(config, backbone) for backbone in backbones}
    for backbone in backbones:
        for protocol in (PLAIN, GROUP):
            table.run(make_cell(configs[backbone], backbone, protocol, folds[0]), slices, world)
    if not quick:
        for backbone in finalists(table.rows()):
            for fold in folds[1:]:
                table.run(make_cell(configs[backbone], backbone, GROUP, fold), slices, world)
    return table.rows()


def finalists(rows: pd.DataFrame) -> list[str]:
    """The backbones with the best accuracy on the plain split, best first."""
    plain = rows[rows["protocol"] == PLAIN].sort_values("accuracy", ascending=False, kind="stable")
    return list(plain["backbone"].head(FINALISTS))


class ComparisonTable:
    """comparison.csv, a row a cell; a row is known by its cell, the hash of its config, and the data's."""

    def __init__(self, config: Config) -> None:
        self.folder = run_folder(config)
        self.file = self.folder / "comparison.csv"
        self.data = read_fingerprint(config)["hash"]
        self.asked: list[tuple] = []

    def run(self, cell: Cell, slices: Slices, world: World) -> None:
        """Train the cell unless its row is there already."""
        key = (cell.backbone, cell.protocol, cell.fold, config_hash(cell.config), self.data)
        self.asked.append(key)
        if key in set(self._keys(self._read())):
            return
        row = dict(zip(KEYS, key, strict=True)) | train_cell(cell, slices, self.folder / "cells", world)
        if world.is_main:
            write_table(pd.concat([self._read(), pd.DataFrame([row])], ignore_index=True)[list(COLUMNS)], self.file)
        world.barrier()

    def rows(self) -> pd.DataFrame:
        """The rows of the cells that were asked for, in that order."""
        table = self._read()
        place = {key: number for number, key in enumerate(self._keys(table))}
        return table.iloc[[place[key] for key in self.asked]].reset_index(drop=True)

    def _read(self) -> pd.DataFrame:
        return read_csv(self.file, COLUMNS) if self.file.exists() else pd.DataFrame(columns=list(COLUMNS))

    def _keys(self, table: pd.DataFrame) -> Iterator[tuple]:
        return table[list(KEYS)].itertuples(index=False, name=None)


def train_cell(cell: Cell, slices: Slices, folder: Path, world: World) -> dict[str, object]:
    """Train one cell and measure it: the columns of its row that are not keys."""
    config = cell.config
    place = folder / f"{config.model.backbone}-{cell.protocol}{cell.fold}"
    if world.is_main:
        # Of a cell that was interrupted; it begins anew, because its seconds are to be measured.
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
    world.barrier()
    task = SplitTask(config, slices, held_out(slices, cell.protocol, cell.fold, config.folds.seed))
    model = fit(task, config, place, world)
    accuracy = task.accuracy(predict(model, task.prediction_samples(), config, world))
    if world.is_main:
        (place / "last.ckpt").unlink()
        print(f"{cell.backbone}, {cell.protocol} {cell.fold}: accuracy {accuracy:.4f}", flush=True)
    return {
        "pretrained": config.model.pretrained or "none",
        "image_size_px": config.data.image_size_px,
        "training_slices": int((~task.held_out).sum()),
        "held_out_slices": int(task.held_out.sum()),
        "constant": round(task.constant_accuracy(), 6),
        "accuracy": round(accuracy, 6),
        "seconds": round(float(read_csv(place / "metrics.csv", ("seconds",))["seconds"].sum()), 2),
    }


def comparison_text(rows: pd.DataFrame) -> str:
    """A table of the backbones, the finalists' folds, and how much of the plain split's accuracy is a leak."""
    first = rows.drop_duplicates(["backbone", "protocol"])
    wide = first.pivot(index="backbone", columns="protocol", values=["accuracy", "seconds"])
    table = pd.DataFrame(
        {
            "px": first.groupby("backbone")["image_size_px"].first(),
            "seconds": wide["seconds", PLAIN],
            "plain": wide["accuracy", PLAIN],
            "group": wide["accuracy", GROUP],
            "leak": wide["accuracy", PLAIN] - wide["accuracy", GROUP],
        }
    ).sort_values("plain", ascending=False)
    lines = [table.to_string(formatters={"seconds": "{:.1f}".format}, float_format="{:.4f}".format)]
    floor = first.groupby("protocol")["constant"].mean()
    lines.append(f"the same answer on every slice: plain {floor[PLAIN]:.4f}, group {floor[GROUP]:.4f}")
    lines.append(
        f"leak of the plain split (its accuracy minus that of a group fold): mean {table['leak'].mean():+.4f}, "
        f"from {table['leak'].min():+.4f} to {table['leak'].max():+.4f} over {len(table)} backbones"
    )
    groups = rows[rows["protocol"] == GROUP].groupby("backbone", sort=False)
    folds = groups["accuracy"].agg(["mean", "std", "count"]).assign(seconds=groups["seconds"].mean())
    for name, row in folds[folds["count"] > 1].sort_values("mean", ascending=False).iterrows():
        lines.append(
            f"{name}, {row['count']:.0f} group folds: {row['mean']:.4f} +- {row['std']:.4f}, {row['seconds']:.1f} s"
        )
    return "\n".join(lines)
