"""How well level maps fit the masks: overlap by voxel, and what a background mask learned from them would keep."""

from collections.abc import Iterable

import numpy as np

from cspine.anatomy import LEVELS
from cspine.config import Preprocess
from cspine.data.background import FOUND, on_pixels, spine_pixels
from cspine.data.cache import CachedStudy
from cspine.data.levels3d import level_labels
from cspine.level_maps import LevelMap

VOXEL_SCORES = ("dice", "mask_keeps", "mask_leaves")


def map_scores(found: Iterable[tuple[CachedStudy, LevelMap]], settings: Preprocess) -> dict[str, float]:
    """Means over studies with masks, all on the cached pixels; empty without any.

    `dice`: the mean Dice coefficient of the levels that a mask shows; `mask_keeps`: the share of the vertebrae's pixels
    that `preprocess.mask=learned` keeps; `mask_leaves`: the share that it keeps of all pixels.
    """
    rows = [_study_scores(study, made, settings) for study, made in found if study.presence is not None]
    if not rows:
        return {}
    means = np.nanmean(np.array(rows), axis=0)
    return dict(zip(VOXEL_SCORES, map(float, means), strict=True))


def _study_scores(study: CachedStudy, found: LevelMap, settings: Preprocess) -> tuple[float, float, float]:
    true, z_mm = study.levels, study.geometry.z_mm
    size_px = true.shape[-1]
    kept = spine_pixels(z_mm, size_px, found, settings)
    labels = on_pixels(level_labels(found.probabilities, 255 * FOUND), found, z_mm, size_px, settings)
    shown = true > 0
    keeps = kept[shown].mean() if shown.any() else np.nan
    return _mean_dice(true, labels), float(keeps), float(kept.mean())


def level_dice(true: np.ndarray, found: np.ndarray) -> np.ndarray:
    """(7,) the Dice coefficient of each level of two arrays of labels; NaN for one that `true` does not show."""
    count = len(LEVELS) + 1
    true_voxels, found_voxels = (np.bincount(labels.ravel(), minlength=count)[1:] for labels in (true, found))
    both = np.bincount(true[true == found], minlength=count)[1:]
    return np.where(true_voxels > 0, 2 * both / np.maximum(true_voxels + found_voxels, 1), np.nan)


def _mean_dice(true: np.ndarray, found: np.ndarray) -> float:
    """The mean Dice coefficient of the levels in `true`; NaN where it shows none."""
    scores = level_dice(true, found)
    shown = ~np.isnan(scores)
    return float(scores[shown].mean()) if shown.any() else np.nan
