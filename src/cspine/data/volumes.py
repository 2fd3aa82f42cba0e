"""Windows of the grid as samples of 3-D models: random and transformed in training, side by side in prediction."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from cspine.config import Config
from cspine.data.augment3d import VolumeAugmenter, cut_window
from cspine.data.cache import CachedStudy
from cspine.data.grid import Grid, study_grid


def window_starts(planes: int, depth: int, overlap: float) -> list[int]:
    """First planes of the windows of `depth` that cover `planes`, evenly spread; one in the middle if it is enough."""
    if planes <= depth:
        # Below zero: the window begins above the study.
        return [-((depth - planes) // 2)]
    count = 1 + int(np.ceil((planes - depth) / max(1, round(depth * (1 - overlap)))))
    return np.rint(np.linspace(0, planes - depth, count)).astype(int).tolist()


def join_windows(values: np.ndarray, starts: list[int], planes: int) -> np.ndarray:
    """(planes, ...) from those of the windows (windows, depth, ...): their mean, the middle of a window counts most."""
    depth = values.shape[1]
    shape = (depth, *[1] * (values.ndim - 2))
    weight = np.minimum(np.arange(depth) + 1, depth - np.arange(depth)).astype(np.float32).reshape(shape)
    total, weights = np.zeros((planes, *values.shape[2:]), np.float32), np.zeros((planes, *shape[1:]), np.float32)
    for window, start in zip(values, starts, strict=True):
        inside = slice(max(0, -start), min(depth, planes - start))
        target = slice(start + inside.start, start + inside.stop)
        total[target] += weight[inside] * window[inside]
        weights[target] += weight[inside]
    return total / weights


def study_windows(pixels: np.ndarray, config: Config) -> tuple[np.ndarray, list[int]]:
    """All windows of one study's grid, uint8 (n, channels, *window_px), and their first planes."""
    starts = window_starts(pixels.shape[1], config.volume.window_px[0], config.volume.overlap)
    return np.stack([cut_window(pixels, start, config.volume.window_px) for start in starts]), starts


class VolumeSamples:
    """Random windows of studies with masks, held in memory on their grids: `image` and `levels` of the same voxels."""

    def __init__(self, studies: list[CachedStudy], config: Config) -> None:
        self.config = config
        self.augmenter = VolumeAugmenter(config.volume_augment, config.volume, config.preprocess.windows)
        self.pixels, self.levels = [], []
        for study in studies:
            grid = study_grid(study.geometry.z_mm, config)
            self.pixels.append(grid.sample_pixels(study.volume))
            self.levels.append(grid.sample_labels(study.levels))

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        position, seed = key
        pixels, levels = self.pixels[position], self.levels[position]
        if seed < 0:
            window = self.config.volume.window_px
            start = window_starts(len(levels), window[0], 0.0)[0]
            cut = cut_window(pixels, start, window), cut_window(levels[None], start, window)[0]
        else:
            cut = self.augmenter(pixels, levels, seed)
        return {"image": torch.from_numpy(cut[0]), "levels": torch.from_numpy(cut[1])}

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(np.repeat(np.arange(len(self)), self.config.volume.windows_per_study))


@dataclass(frozen=True)
class _Place:
    """A window: which study, and its first plane."""

    study: int
    start: int


class WindowSamples:
    """The windows that cover whole studies, one study after another, read from the cache as they are asked for."""

    def __init__(self, studies: list[CachedStudy], config: Config) -> None:
        self.studies, self.config = studies, config
        self._last: tuple[int, np.ndarray] | None = None

    @cached_property
    def grids(self) -> list[Grid]:
        return [study_grid(study.geometry.z_mm, self.config) for study in self.studies]

    @cached_property
    def starts(self) -> list[list[int]]:
        """Of each study the first planes of its windows."""
        volume = self.config.volume
        return [window_starts(grid.shape[0], volume.window_px[0], volume.overlap) for grid in self.grids]

    @cached_property
    def _places(self) -> list[_Place]:
        return [_Place(study, start) for study, starts in enumerate(self.starts) for start in starts]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        place = self._places[key[0]]
        window = cut_window(self._pixels(place.study), place.start, self.config.volume.window_px)
        return {"image": torch.from_numpy(window)}

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(len(self))

    def _pixels(self, study: int) -> np.ndarray:
        # The windows of a study come one after another.
        if self._last is None or self._last[0] != study:
            self._last = study, self.grids[study].sample_pixels(self.studies[study].volume)
        return self._last[1]
