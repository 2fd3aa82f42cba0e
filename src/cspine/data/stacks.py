"""Whole stacks as samples of 3-D classifiers: one window of fixed size in mm a study, about the levels if known."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from cspine.anatomy import LEVELS
from cspine.config import Config
from cspine.data.augment3d import VolumeAugmenter, cut_window
from cspine.data.cache import CachedStudy
from cspine.data.grid import study_grid
from cspine.data.level_crops import LevelPlace
from cspine.metrics import study_weights


@dataclass(frozen=True, eq=False)
class StackView:
    """What of a stack is looked at."""

    middle_mm: float  # of the window along z, in the z of the study's slices
    judged: np.ndarray  # bool (7,): the levels to judge


def stack_view(z_mm: np.ndarray, places: Sequence[LevelPlace | None] | None, config: Config) -> StackView:
    """The view of a study whose slices lie at `z_mm`: the levels' middle is its own, or the stack's if there are none.

    Without `places` (no stage 1) all levels are judged, else those that have one whose middle lies in the window.
    """
    found = [place for place in places or () if place is not None]
    ends_mm = [end for place in found for end in (place.top_mm, place.bottom_mm)] or [z_mm[0], z_mm[-1]]
    middle_mm = float(max(ends_mm) + min(ends_mm)) / 2
    if places is None:
        return StackView(middle_mm, np.ones(len(LEVELS), bool))
    reach_mm = config.volume.window_px[0] * config.volume.voxel_mm / 2
    return StackView(middle_mm, np.array([_is_near(place, middle_mm, reach_mm) for place in places]))


def stack_window(volume: np.ndarray, z_mm: np.ndarray, middle_mm: float, config: Config) -> np.ndarray:
    """The window about a place along z as it is, uint8 (windows, *window_px), of cached pixels (z, windows, y, x)."""
    pixels, middle = _on_grid(volume, z_mm, middle_mm, config)
    return cut_window(pixels, _first_plane(middle, config), config.volume.window_px)


def window_z_mm(z_mm: np.ndarray, middle_mm: float, config: Config) -> np.ndarray:
    """(planes,) where the planes of that window lie, cranial first."""
    grid = study_grid(z_mm, config)
    first = _first_plane(float(grid.plane_z_mm[0] - middle_mm) / grid.voxel_mm, config)
    return grid.plane_z_mm[0] - (first + np.arange(config.volume.window_px[0])) * grid.voxel_mm


def window_frame(z_mm: np.ndarray, config: Config) -> tuple[float, float, float, float]:
    """Left, right, top and bottom of that window, as shares of the cached square from its upper left."""
    side = study_grid(z_mm, config).side
    starts = [(side - width) // 2 for width in config.volume.window_px[1:]]
    top, left = (start / side for start in starts)
    bottom, right = ((start + width) / side for start, width in zip(starts, config.volume.window_px[1:], strict=True))
    return left, right, top, bottom


def _first_plane(middle: float, config: Config) -> int:
    return round(middle - (config.volume.window_px[0] - 1) / 2)


class StackSamples:
    """Studies, one sample each: `image` (windows, z, y, x), `fractured` (8,), and `weight` (8,), 0 where not judged.

    With `augmented` they are held in memory on their grids, because it takes longer to make them than to train on them.
    """

    def __init__(
        self,
        studies: list[CachedStudy],
        views: list[StackView],
        fractured: np.ndarray,
        config: Config,
        augmented: bool,
    ) -> None:
        """`fractured` are the labels (studies, 8)."""
        self.studies, self.views, self.fractured, self.config = studies, views, fractured, config
        judged = np.array([view.judged for view in views], bool).reshape(-1, len(LEVELS))
        self.weights = study_weights(fractured, judged, config.train.positive_weight)
        self.augmenter = VolumeAugmenter(config.volume_augment, config.volume, config.preprocess.windows)
        self.grids: list[tuple[np.ndarray, float]] = []
        if augmented:
            with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
                self.grids = list(pool.map(self._on_grid, range(len(studies))))

    def __len__(self) -> int:
        return len(self.studies)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        position, seed = key
        study, view = self.studies[position], self.views[position]
        if self.grids and seed >= 0:
            image = self.augmenter.around(*self.grids[position], seed)
        else:
            image = stack_window(study.volume, study.geometry.z_mm, view.middle_mm, self.config)
        return {
            "image": torch.from_numpy(image),
            "fractured": torch.from_numpy(self.fractured[position].astype(np.float32)),
            "weight": torch.from_numpy(self.weights[position].astype(np.float32)),
        }

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(len(self))

    def _on_grid(self, position: int) -> tuple[np.ndarray, float]:
        study = self.studies[position]
        return _on_grid(study.volume, study.geometry.z_mm, self.views[position].middle_mm, self.config)


def _on_grid(volume: np.ndarray, z_mm: np.ndarray, middle_mm: float, config: Config) -> tuple[np.ndarray, float]:
    """A study on its grid, uint8 (windows, planes, side, side), and the plane, in fractions, of a place along z."""
    grid = study_grid(z_mm, config)
    return grid.sample_pixels(volume), float(grid.plane_z_mm[0] - middle_mm) / grid.voxel_mm


def _is_near(place: LevelPlace | None, middle_mm: float, reach_mm: float) -> bool:
    return place is not None and abs((place.top_mm + place.bottom_mm) / 2 - middle_mm) < reach_mm
