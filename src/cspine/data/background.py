"""A learned background mask (the method, phase 1): what is far from every level that a vertebra run finds becomes 0.

The run's level maps (level_maps.py) are out-of-fold, so a study's own mask had no part in what is kept of it.
"""

from pathlib import Path

import numpy as np

from cspine.config import DatasetConfig, Preprocess
from cspine.data.levels3d import level_labels, spine_mask
from cspine.errors import UserError
from cspine.level_maps import LevelMap, require_level_maps

# Where the map says more there is a level.
FOUND = 0.5


def spine_run(config: DatasetConfig, split: str) -> Path | None:
    """The folder of the run whose maps a learned mask is made of; None where the mask is another.

    Raises UserError where the settings do not allow one, or the run has no maps.
    """
    settings = config.preprocess
    if settings.mask != "learned":
        return None
    if settings.mask_run is None:
        raise UserError("preprocess.mask=learned needs preprocess.mask_run, the name of a run of task vertebra/volume")
    if settings.field_mm is None:
        raise UserError("preprocess.mask=learned needs a field of fixed size; set preprocess.field_mm")
    if split != "train":
        raise UserError(
            "preprocess.mask=learned prepares the training studies alone, because runs map no others; "
            "src/predict.py finds the spine of a new study itself"
        )
    run = Path(config.paths.oof) / settings.mask_run
    require_level_maps(run, "preprocess.mask=learned", "preprocess.mask_run")
    return run


def keep_spine(volume: np.ndarray, z_mm: np.ndarray, found: LevelMap, settings: Preprocess) -> np.ndarray:
    """A copy of the cached pixels, uint8 (z, windows, y, x), 0 beyond `mask_margin_mm` of every level of the map."""
    kept = spine_pixels(z_mm, volume.shape[-1], found, settings)
    cleared = np.zeros_like(volume)
    np.copyto(cleared, volume, where=kept[:, None])
    return cleared


def spine_pixels(z_mm: np.ndarray, size_px: int, found: LevelMap, settings: Preprocess) -> np.ndarray:
    """Which cached pixels lie within `mask_margin_mm` of a level of the map, bool (z, y, x).

    All of them where no level is found: there is nothing to tell the background by.
    """
    labels = level_labels(found.probabilities, 255 * FOUND)
    if not labels.any():
        return np.ones((len(z_mm), size_px, size_px), bool)
    side, planes_mm = labels.shape[-1], found.plane_z_mm
    voxel_mm = found.field_mm / side
    height_mm = float(planes_mm[0] - planes_mm[1]) if len(planes_mm) > 1 else voxel_mm
    kept = spine_mask(labels, settings.mask_margin_mm, (height_mm, voxel_mm, voxel_mm))
    return on_pixels(kept, found, z_mm, size_px, settings)


def on_pixels(voxels: np.ndarray, found: LevelMap, z_mm: np.ndarray, size_px: int, settings: Preprocess) -> np.ndarray:
    """Values (z, y, x) of cached pixels from those of a map's voxels (planes, side, side): the nearest; 0 beyond."""
    assert settings.field_mm is not None  # or there would be no map
    side = voxels.shape[-1]
    # The map and the pixels are both centred on the middle of the body.
    places_mm = ((np.arange(size_px) + 0.5) / size_px - 0.5) * settings.field_mm
    index = np.floor(places_mm * side / found.field_mm + side / 2).astype(int)
    inside = (index >= 0) & (index < side)
    index = index.clip(0, side - 1)
    nearest = np.abs(found.plane_z_mm[:, None] - z_mm).argmin(axis=0)
    return voxels[nearest[:, None, None], index[:, None], index] * (inside[:, None] & inside)
