"""A level map whose levels are grown along the study's own bone (data/bones.py).

A network that sees voxels of 4 mm is sure of the bodies and misses most of the processes. Grown, its map shows whole
vertebrae, as heads on levels are pre-trained with, and their images reach the tips of the processes.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
from scipy import ndimage

from cspine.anatomy import LEVELS
from cspine.config import Config
from cspine.data.background import FOUND
from cspine.data.bones import BONE_HU, VOXEL_MM, level_bones
from cspine.data.grid import Grid, slice_index
from cspine.data.levels3d import found_labels
from cspine.errors import UserError
from cspine.level_maps import LevelMap, level_map, mean_map
from cspine.windows import window_hu

# The least that a window must show above what counts as bone, for the densest bone to be taken first.
LEAST_ABOVE_HU = 300.0
# A voxel is the level's, wholly, from this share on: bone that is thin fills few large voxels to the half.
FULL_SHARE = 0.5


def grow_maps(maps: Sequence[LevelMap], volume: np.ndarray, z_mm: np.ndarray, config: Config) -> LevelMap:
    """The mean of the maps that models make of a study, each grown along bone by up to `volume.grow_mm`.

    `volume` are the study's cached pixels, uint8 (z, windows, y, x), at `z_mm`, on which all maps have the same voxels.
    Of a level that a map finds (FOUND) its values become the share of the voxel that is the level's bone, 1 from
    FULL_SHARE on; the others keep theirs. Raises UserError where the cache does not tell how dense bone is.
    """
    window, grid = bone_window(config), fine_grid(maps[0], z_mm)
    low, high = window_hu(config.preprocess.windows[window])
    hu = low + grid.sample_pixels(volume[:, window : window + 1])[0] * np.float32((high - low) / 255)
    # Threads: most of it is done by libraries that let others run beside them.
    with ThreadPoolExecutor(len(maps)) as pool:
        return mean_map(list(pool.map(partial(_grown, hu=hu, grid=grid, reach_mm=config.volume.grow_mm), maps)))


def _grown(found: LevelMap, hu: np.ndarray, grid: Grid, reach_mm: float) -> LevelMap:
    likeliest, probability = _on_grid(found, grid)
    labels = found_labels(likeliest, probability, FOUND)
    bones = level_bones(hu, labels, probability, grid.voxel_mm, reach_mm)
    grown = map_of_labels(bones, grid, found)
    there = np.bincount(bones.ravel(), minlength=len(LEVELS) + 1)[1:] > 0
    return replace(grown, probabilities=np.where(there[:, None, None, None], grown.probabilities, found.probabilities))


def fine_grid(found: LevelMap, z_mm: np.ndarray) -> Grid:
    """Voxels of VOXEL_MM, or of the map's size where that is less, over the field of a map; slices lie at `z_mm`."""
    side = max(round(found.field_mm / VOXEL_MM), found.probabilities.shape[-1])
    return Grid(z_mm, found.field_mm / side, side)


def map_of_labels(labels: np.ndarray, grid: Grid, like: LevelMap) -> LevelMap:
    """A map with the voxels of another: of each level the share of a voxel that labels 1 to 7 on a finer grid give it.

    1 from FULL_SHARE on.
    """
    return level_map(np.minimum(_shares(labels, grid, like) / FULL_SHARE, 1), like.plane_z_mm, like.field_mm)


def bone_window(config: Config) -> int:
    """Which of the cached windows shows bone best: the widest of those that reach from soft tissue far into bone.

    Raises UserError where none does, or where grey values are no longer those of the scan.
    """
    if config.preprocess.denoise != "none":
        raise UserError(
            f"{config.name}: volume.grow_mm needs the scan's own grey values; set preprocess.denoise=none, or "
            "volume.grow_mm=0"
        )
    widths = []
    for number, text in enumerate(config.preprocess.windows):
        low, high = window_hu(text)
        if low < BONE_HU and high >= BONE_HU + LEAST_ABOVE_HU:
            widths.append((high - low, number))
    if not widths:
        raise UserError(
            f"{config.name}: volume.grow_mm needs a window that shows bone, from under {BONE_HU:g} to over "
            f"{BONE_HU + LEAST_ABOVE_HU:g} HU; add 'wide' or 'bone' to preprocess.windows, or set volume.grow_mm=0"
        )
    return max(widths)[1]


def _on_grid(found: LevelMap, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest level on a finer grid over the same field, uint8 with 1 to 7, and its probability, float32.

    Linear between the map's voxels.
    """
    level, best = np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, np.float32)
    index = slice_index(grid.plane_z_mm, found.plane_z_mm)
    for number, probabilities in enumerate(found.probabilities, start=1):
        seen = np.flatnonzero(probabilities.any(axis=(1, 2)))
        if not len(seen):
            continue
        # A level takes a tenth of the stack: only the planes about it are looked at.
        first, last = max(0, seen[0] - 1), min(len(probabilities) - 1, seen[-1] + 1)
        there = np.flatnonzero((index >= first) & (index <= last))
        wide = [
            cv2.resize(plane / np.float32(255), (grid.side, grid.side)) for plane in probabilities[first : last + 1]
        ]
        lower = np.minimum(index[there].astype(int), max(first, last - 1))
        share = (index[there] - lower).astype(np.float32)
        for plane, low, part in zip(there, lower - first, share, strict=True):
            made = (1 - part) * wide[low] + part * wide[min(low + 1, len(wide) - 1)]
            likelier = made > best[plane]
            best[plane][likelier] = made[likelier]
            level[plane][likelier] = number
    return level, best


def _shares(bones: np.ndarray, grid: Grid, found: LevelMap) -> np.ndarray:
    """float32 (7, planes, side, side): how much of each of the map's voxels is a level's, by labels on a finer grid."""
    side = found.probabilities.shape[-1]
    nearest = np.abs(grid.plane_z_mm[:, None] - found.plane_z_mm).argmin(axis=1)
    counts = np.bincount(nearest, minlength=len(found.plane_z_mm))
    shares = np.zeros(found.probabilities.shape, np.float32)
    for level, box in enumerate(ndimage.find_objects(bones, len(LEVELS)), start=1):
        if box is None:
            continue
        for plane in range(box[0].start, box[0].stop):
            mine = (bones[plane] == level).astype(np.float32)
            shares[level - 1, nearest[plane]] += cv2.resize(mine, (side, side), interpolation=cv2.INTER_AREA)
    return shares / np.maximum(counts, 1)[:, None, None]
