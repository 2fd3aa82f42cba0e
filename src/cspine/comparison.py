"""Backbones compared as the report did it, and without its leak (README, the method, phase 2).

`plain` splits the slices of the studies with masks 80/20, so that neighbouring slices of one patient stand on both
sides; `group` holds out the studies of a fold of folds.csv. A cell (cells.py) is a backbone, a protocol, a fold.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from cspine.cells import Cell, CellTable, Slices, masked_slices
from cspine.config import Config
from cspine.data.slices import channels
from cspine.engine.distributed import World
from cspine.models.backbones import REPORT, usable_size

PLAIN, GROUP = "plain", "group"
HELD_OUT_SHARE = 0.2
FINALISTS = 5
NAMES = ("backbone", "protocol", "fold")
# For two cores and some 24 studies with masks: so few slices need small batches, or an epoch has too few steps to learn
# in. VGG16-BN took over four minutes a cell on one busy core, the others half a minute to one.
QUICK = ("data.image_size_px=64", "data.slices_per_study=26", "data.workers=0", "train.batch_size=8")


def held_out(slices: Slices, protocol: str, fold: int, seed: int) -> np.ndarray:
    """Which slices (n,) a cell does not train on: those of the fold's studies, or a random fifth of all slices."""
    if protocol == GROUP:
        return slices.of_fold(fold)
    order = np.random.default_rng(seed).permutation(len(slices.study))
    chosen = np.zeros(len(order), bool)
    chosen[order[: round(HELD_OUT_SHARE * len(order))]] = True
    return chosen


def make_cell(config: Config, backbone: str, protocol: str, fold: int) -> Cell:
    """The training of a backbone, by its report's name or the factory's."""
    model = replace(config.model, backbone=REPORT.get(backbone, backbone))
    made = replace(config, name=f"{config.name}-{model.backbone}", model=model)
    return Cell((backbone, protocol, fold), made)


def at_usable_size(config: Config, backbone: str) -> Config:
    """The config, with the least image size that a backbone takes where it does not take the config's."""
    settings = replace(config.model, backbone=REPORT.get(backbone, backbone))
    size_px = usable_size(settings, channels(config), config.data.image_size_px)
    return replace(config, data=replace(config.data, image_size_px=size_px))


def compare(config: Config, backbones: Sequence[str], world: World, quick: bool = False) -> pd.DataFrame:
    """Train every cell that comparison.csv lacks and return the rows of this config: NAMES, KEYS, MEASURES.

    All backbones by the plain split and by group fold 0; unless `quick`, the FINALISTS best of the plain split by the
    other group folds as well. A row is written as soon as its cell is done.
    """
    slices = masked_slices(config)
    folds = sorted(set(slices.fold.tolist()))
    table = CellTable(config, "comparison.csv", NAMES)
    configs = {backbone: at_usable_size(config, backbone) for backbone in backbones}

    def run(backbone: str, protocol: str, fold: int) -> None:
        chosen = held_out(slices, protocol, fold, config.folds.seed)
        table.run(make_cell(configs[backbone], backbone, protocol, fold), slices, chosen, world)

    for backbone in backbones:
        for protocol in (PLAIN, GROUP):
            run(backbone, protocol, folds[0])
    if not quick:
        for backbone in finalists(table.rows()):
            for fold in folds[1:]:
                run(backbone, GROUP, fold)
    return table.rows()


def finalists(rows: pd.DataFrame) -> list[str]:
    """The backbones with the best accuracy on the plain split, best first."""
    plain = rows[rows["protocol"] == PLAIN].sort_values("accuracy", ascending=False, kind="stable")
    return list(plain["backbone"].head(FINALISTS))


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
