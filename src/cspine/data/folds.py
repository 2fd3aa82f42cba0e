"""Folds dealt once, by patient (here a study is a patient), alike in fracture pattern, masks and boxes."""

import hashlib

import numpy as np
import pandas as pd

from cspine.anatomy import LEVELS, TARGETS
from cspine.config import DatasetConfig, Folds
from cspine.data.layout import box_file, label_file, masks_on_disk
from cspine.errors import UserError
from cspine.paths import find_dataset, folds_file
from cspine.tables import STUDY, read_boxes, read_folds, read_labels, write_table


def make_folds(labels: pd.DataFrame, has_mask: set[str], has_box: set[str], config: Folds) -> pd.DataFrame:
    """`StudyInstanceUID, fold`, sorted by UID: the same for the same studies and seed, in whatever order they come.

    Greedy iterative stratification: traits from the rarest to the commonest, masks first; each study with the trait
    goes to the fold that lacks it most. Raises UserError where there are fewer studies than folds.
    """
    if len(labels) < config.count:
        raise UserError(f"{len(labels)} studies cannot be dealt into folds.count={config.count} folds")
    table = labels.sort_values(STUDY, ignore_index=True)
    shuffled = sorted(range(len(table)), key=lambda row: _key(config.seed, table[STUDY][row]))
    traits = _traits(table, has_mask, has_box)
    missing = np.tile(traits.sum(axis=0) / config.count, (config.count, 1))
    folds = np.full(len(table), -1)
    for trait in _order(traits):
        for row in shuffled:
            if folds[row] < 0 and traits[row, trait]:
                folds[row] = _neediest(missing, trait, traits[row])
                missing[folds[row]] -= traits[row]
    return pd.DataFrame({STUDY: table[STUDY], "fold": folds})


def _traits(table: pd.DataFrame, has_mask: set[str], has_box: set[str]) -> np.ndarray:
    """bool (n, traits): mask, box, the eight targets, two or more fractured levels, and every study at all."""
    levels = table[list(LEVELS)].to_numpy(bool)
    columns = [
        table[STUDY].isin(has_mask).to_numpy(),
        table[STUDY].isin(has_box).to_numpy(),
        *(table[target].to_numpy(bool) for target in TARGETS),
        levels.sum(axis=1) > 1,
        np.ones(len(table), bool),
    ]
    return np.stack(columns, axis=1)


def _order(traits: np.ndarray) -> list[int]:
    """Masks first, since stage 1 stands on so few of them; then from rare to common."""
    rest = sorted(range(1, traits.shape[1]), key=lambda trait: (traits[:, trait].sum(), trait))
    return [0, *rest]


def _neediest(missing: np.ndarray, trait: int, traits: np.ndarray) -> int:
    """The fold that lacks most of the trait; among equals the one that lacks most of the study's other traits."""
    needs = [(round(row[trait], 6), round(row[traits].sum(), 6), -fold) for fold, row in enumerate(missing)]
    return -max(needs)[2]


def _key(seed: int, uid: str) -> str:
    return hashlib.sha256(f"{seed}:{uid}".encode()).hexdigest()


def write_or_verify_folds(config: DatasetConfig) -> pd.DataFrame:
    """Deal the folds into `folds.csv`, or check that the file there is what these data and settings give.

    Raises UserError saying what changed: folds are never dealt anew by themselves, because runs in oof/ stand on them.
    """
    root, file = find_dataset(config), folds_file(config)
    labels = read_labels(label_file(root))
    has_box = set(read_boxes(box_file(root))[STUDY]) if box_file(root).is_file() else set()
    fresh = make_folds(labels, set(masks_on_disk(root)), has_box, config.folds)
    if not file.is_file():
        write_table(fresh, file)
        return fresh
    known = read_folds(file).sort_values(STUDY, ignore_index=True)
    if change := _change(known, fresh, config.folds):
        raise UserError(
            f"{file} does not match the data and settings: {change}. Put them back, or delete {file} to deal the folds "
            f"anew, which voids the runs in {config.paths.oof}/ (they stand on the old folds)"
        )
    return known


def _change(known: pd.DataFrame, fresh: pd.DataFrame, config: Folds) -> str | None:
    added, removed = set(fresh[STUDY]) - set(known[STUDY]), set(known[STUDY]) - set(fresh[STUDY])
    if added or removed:
        example = min(added or removed)
        return f"{len(added)} studies are new and {len(removed)} are gone, for example {example}"
    if known["fold"].nunique() != config.count:
        return f"it holds {known['fold'].nunique()} folds, and folds.count={config.count}"
    moved = int((known["fold"].to_numpy() != fresh["fold"].to_numpy()).sum())
    if moved:
        return (
            f"{moved} studies would be in another fold, because folds.seed={config.seed} is another, or labels, masks "
            f"or boxes have changed"
        )
    return None
