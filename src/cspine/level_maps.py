"""Where stage 1 finds each level in a study: probabilities on cubic voxels, `oof/<run>/fold<k>/levels/<uid>.npz`.

Out-of-fold by the rule of the slice table (slice_table.py): a study with a mask has the map of the fold that did not
train on it; one without that of the model of all data (`full`), or, as long as that is not trained, the mean over the
folds. A map has 8-bit probabilities, nearly all 0, so that a study takes some tens of kB.
"""

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cspine.anatomy import LEVELS
from cspine.config import Config
from cspine.errors import UserError
from cspine.paths import atomic

FOLDER = "levels"
AGAIN = "python src/train.py --config configs/vertebra/volume.yaml --fold all"


@dataclass(frozen=True, eq=False)
class LevelMap:
    """The probability of each level in each voxel of a study; in y and x the voxels share the field of the cache."""

    probabilities: np.ndarray  # uint8 (7, planes, side, side), 255 is certain; grown, 255 is at least half of the voxel
    plane_z_mm: np.ndarray  # (planes,) falling, in the z of the study's slices
    field_mm: float  # of `side` voxels, around the middle of the body


def level_map(probabilities: np.ndarray, plane_z_mm: np.ndarray, field_mm: float) -> LevelMap:
    """A map of float probabilities (7, planes, side, side)."""
    return LevelMap(np.rint(255 * probabilities).astype(np.uint8), plane_z_mm, field_mm)


def map_file(folder: Path, uid: str) -> Path:
    """Where the map of a study lies under the folder of a fold."""
    return folder / FOLDER / f"{uid}.npz"


def write_level_map(file: Path, made: LevelMap) -> None:
    with atomic(file) as temporary:
        np.savez_compressed(temporary, **vars(made))


def read_level_map(file: Path) -> LevelMap:
    """Raises UserError where the file is damaged."""
    try:
        with np.load(file) as content:
            return LevelMap(content["probabilities"], content["plane_z_mm"], float(content["field_mm"]))
    except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{file}: damaged ({error}); delete it and train the vertebra run's folds again") from error


def stage1_level_map(config: Config, uid: str, z_mm: np.ndarray) -> LevelMap:
    """The map of a study, whose slices lie at `z_mm`, by the vertebra run that a fracture head's config names.

    Raises UserError where the run has none, or one of another stack.
    """
    if config.stage1 is None:
        raise UserError(f"{config.name}: the key 'stage1' must name the vertebra run whose level maps to read")
    run = Path(config.paths.oof) / config.stage1
    require_level_maps(run, config.task, "stage1")
    return run_level_map(run, uid, z_mm)


def require_level_maps(run: Path, reader: str, key: str) -> None:
    """Raises UserError where the folder of a run has no maps of all folds; `reader` needs them, `key` names the run."""
    if not (run / "slices.parquet").exists() or not any(run.glob(f"fold*/{FOLDER}")):
        raise UserError(
            f"{reader} needs the level maps of a run of task vertebra/volume, all its folds, and {run} has none; "
            f"make them with: {AGAIN} (--restart if it is done already), and set {key} to its name"
        )


def run_level_map(run: Path, uid: str, z_mm: np.ndarray) -> LevelMap:
    """The map of a study, whose slices lie at `z_mm`, in the folder of a run.

    Raises UserError where there is none, or one of another stack.
    """
    files = map_files(run, uid)
    if not files:
        raise UserError(f"{run}: no fold has a level map of study {uid}; train it again: {AGAIN} --restart")
    found = mean_map([read_level_map(file) for file in files])
    ends_mm = np.abs(found.plane_z_mm[[0, -1]] - z_mm[[0, -1]])
    if (ends_mm > 1 + found.field_mm / found.probabilities.shape[-1]).any():
        raise UserError(f"{files[0]}: does not fit study {uid} in the cache; train it again: {AGAIN} --restart")
    return found


def map_files(run: Path, uid: str) -> list[Path]:
    """The files whose mean is the map of a study: that of the model of all data, or those of the folds."""
    folders = [run / "full"] if map_file(run / "full", uid).exists() else sorted(run.glob("fold*"))
    return [file for folder in folders if (file := map_file(folder, uid)).exists()]


def mean_map(maps: Sequence[LevelMap]) -> LevelMap:
    """The mean of maps of one study on the same voxels, as read and as made."""
    first = maps[0]
    if len(maps) == 1:
        return first
    shape = (len(LEVELS), len(first.plane_z_mm), *first.probabilities.shape[2:])
    total = sum((one.probabilities.astype(np.uint16) for one in maps), np.zeros(shape, np.uint16))
    return level_map(total / (255 * len(maps)), first.plane_z_mm, first.field_mm)
