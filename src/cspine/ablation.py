"""What each switch of preprocessing and augmentation does to "which levels are on a slice" (the method, phase 1).

Every switch is trained on the same slices, by the same group folds and seeds as the baseline, from which it differs in
nothing else. A cell (cells.py) is a switch, a fold, a seed.
"""

import os
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from cspine.cells import Cell, CellTable, Slices, masked_slices
from cspine.config import Config, as_overrides, overridden, to_dict
from cspine.data.background import spine_run
from cspine.data.cache import build_cache
from cspine.engine.distributed import World
from cspine.errors import UserError, nearest
from cspine.paths import cache_folder

BASELINE = "baseline"
SEEDS = 3
NAMES = ("switch", "fold", "seed")
# For two free cores and 24 studies with masks. Too few steps for averaged weights.
QUICK = (
    "data.image_size_px=64",
    "data.slices_per_study=32",
    "data.workers=0",
    "train.epochs=6",
    "train.ema_decay=0",
)
# What each switch lays over the baseline, configs/vertebra/ablation.yaml: an augmentation that the baseline has is
# switched off, one that it lacks is switched on.
SWITCHES = {
    "bone-window": ("preprocess.windows=[bone]",),
    "bone-and-soft-tissue": ("preprocess.windows=[bone,soft_tissue]",),
    "mask-threshold": ("preprocess.mask=threshold",),
    "mask-kmeans": ("preprocess.mask=kmeans",),
    "mask-learned": ("preprocess.mask=learned", "preprocess.mask_run=vertebra-volume"),
    "region-means": ("preprocess.denoise=region_mean",),
    "whole-slice": ("preprocess.field_mm=null",),
    "no-augmentation": ("augment.share=0",),
    "half-augmented": ("augment.share=0.5",),
    "no-rotation": ("augment.rotate_deg=0",),
    "no-shift": ("augment.shift_x=0", "augment.shift_y=0"),
    "no-scale": ("augment.scale=0",),
    "no-brightness-contrast": ("augment.brightness=0", "augment.contrast=0"),
    "horizontal-flip": ("augment.horizontal_flip=0.5",),
    "vertical-flip": ("augment.vertical_flip=0.5",),
    "distortion": ("augment.distortion=0.3",),
    "blur": ("augment.blur_px=1.5",),
    "noise": ("augment.noise=0.1",),
    "cut-out": ("augment.cut_out=0.5",),
    "mixup": ("augment.mixup=0.4",),
}


def choose_switches(config: Config, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The switches of these names; for none all, but for those whose run is not trained, which are told.

    Raises UserError for an unknown name.
    """
    for name in names:
        if name not in SWITCHES:
            raise UserError(f"there is no switch {name}; {nearest(name, SWITCHES)}")
    chosen = {name: SWITCHES[name] for name in names or SWITCHES}
    for name, words in () if names else SWITCHES.items():
        try:
            spine_run(overridden(config, words, where=f"the switch {name}"), "train")
        except UserError as error:
            print(f"{name} is left out: {error}")
            del chosen[name]
    return chosen


def ablate(config: Config, switches: dict[str, tuple[str, ...]], world: World, quick: bool = False) -> pd.DataFrame:
    """Train every cell that ablation.csv lacks and return the rows of this baseline: NAMES, KEYS, MEASURES.

    All group folds, or the first alone if `quick`, each by SEEDS seeds from `train.seed` on. The caches that a switch
    of `preprocess` needs are made, of the studies with masks alone. Raises UserError for a switch that changes nothing.
    """
    configs = {BASELINE: config} | {name: _switched(config, name, words) for name, words in switches.items()}
    baseline = masked_slices(config)
    # All caches first: what fails then has cost no training.
    slices_of = {name: _slices(switched, baseline, config, world) for name, switched in configs.items()}
    folds = sorted(set(baseline.fold.tolist()))[: 1 if quick else None]
    table = CellTable(config, "ablation.csv", NAMES)
    for name, switched in configs.items():
        slices = slices_of[name]
        for fold in folds:
            for number in range(SEEDS):
                cell = make_cell(switched, name, fold, config.train.seed + number)
                table.run(cell, slices, slices.of_fold(fold), world)
    return table.rows()


def make_cell(config: Config, switch: str, fold: int, seed: int) -> Cell:
    made = replace(config, name=f"{config.name}-{switch}", train=replace(config.train, seed=seed))
    return Cell((switch, fold, seed), made)


def _switched(config: Config, name: str, words: tuple[str, ...]) -> Config:
    switched = overridden(config, words, where=f"the switch {name}")
    if switched == config:
        raise UserError(
            f"the switch {name} ({' '.join(words)}) changes nothing: the baseline has it already; "
            "leave the key out of the overrides, or name the other switches behind --ablation"
        )
    return switched


def _slices(switched: Config, baseline: Slices, config: Config, world: World) -> Slices:
    """The baseline's slices as the switch preprocesses them, in a cache that is made where it is not there."""
    if switched.preprocess == config.preprocess:
        return baseline
    uids = [study.uid for study in baseline.studies]
    if world.is_main:
        print(f"{as_overrides('preprocess', to_dict(switched.preprocess))}: {len(uids)} studies with masks", flush=True)
        # Nothing trains meanwhile, so that every core is free.
        build_cache(switched, "train", len(os.sched_getaffinity(0)), progress=world.bars, uids=uids)
    world.barrier()
    slices = masked_slices(switched, uids)
    if [study.uid for study in slices.studies] != uids or len(slices.study) != len(baseline.study):
        raise UserError(
            f"{cache_folder(switched)}: a study with a mask could not be prepared with these settings; "
            "python src/prepare.py --check lists what to do"
        )
    return slices


def effects(rows: pd.DataFrame) -> pd.DataFrame:
    """A row a switch, the best first, the baseline among them.

    `accuracy` is the mean over folds and seeds, `seeds_sd` the deviation over seeds of the mean over folds.
    `difference` is the mean of switch minus baseline over pairs of equal fold and seed, `difference_sd` its deviation
    over these `pairs`, `better` in how many of them it is above zero.
    """
    accuracy = rows.pivot(index=["fold", "seed"], columns="switch", values="accuracy")
    difference = accuracy.sub(accuracy[BASELINE], axis=0)
    table = pd.DataFrame(
        {
            "accuracy": accuracy.mean(),
            "seeds_sd": accuracy.groupby("seed").mean().std(),
            "difference": difference.mean(),
            "difference_sd": difference.std(),
            "better": (difference > 0).sum(),
            "pairs": difference.count(),
            "seconds": rows.groupby("switch")["seconds"].mean(),
        }
    )
    return table.sort_values("difference", ascending=False, kind="stable")


def ablation_text(rows: pd.DataFrame) -> str:
    """The effects in points of accuracy, and what seeds and the constant answer make of them."""
    table = effects(rows)
    points = ["accuracy", "seeds_sd", "difference", "difference_sd"]
    shown = table.assign(**(100 * table[points])).drop(columns="pairs")
    signed = {"difference": "{:+.2f}".format, "seconds": "{:.1f}".format}
    lines = [shown.to_string(formatters=signed, float_format="{:.2f}".format)]
    baseline = table.loc[BASELINE]
    lines.append(
        f"points of accuracy; {baseline['pairs']:.0f} pairs of fold and seed each; "
        f"the same answer on every slice: {100 * rows['constant'].mean():.2f}"
    )
    lines.append(
        f"seeds alone move the baseline by {100 * baseline['seeds_sd']:.2f} (standard deviation); of {len(table) - 1} "
        "switches some look better or worse by chance"
    )
    return "\n".join(lines)
