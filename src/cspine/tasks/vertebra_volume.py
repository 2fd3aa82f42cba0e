"""Which level is where, from the volume: seven sigmoids a voxel by a 3-D U-Net, and from them the levels of each slice.

The model sees windows of a grid of cubic voxels (data/grid.py). What it says of the planes is carried to the study's
slices, so that the run's table is that of vertebra/image and serves the same heads.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from cspine.anatomy import LEVELS
from cspine.config import Config
from cspine.data.augment3d import put_window
from cspine.data.grid import Grid, study_grid
from cspine.data.grown_map import bone_window, grow_maps
from cspine.data.mixup import refuse_mixup
from cspine.data.volumes import VolumeSamples, WindowSamples, join_windows, study_windows
from cspine.engine.forward import model_probabilities
from cspine.errors import UserError
from cspine.level_maps import LevelMap, level_map
from cspine.slice_table import mean_in_order
from cspine.tasks import vertebra_image
from cspine.tasks.base import StudyImages

# Keeps the Dice of a level with hardly a voxel in a window from jumping between 0 and 1.
SMOOTH_VOXELS = 10.0
# The mean over all voxels is small, because nearly all are background and sure of it.
ENTROPY_WEIGHT = 10.0


class Task(vertebra_image.Task):
    """Trains on the volumes of the studies with masks outside the fold; predicts those that vertebra/image does."""

    def __init__(self, config: Config, fold: int | None) -> None:
        if config.data.neighbours:
            raise UserError(f"{config.name}: a volume has no neighbouring slices as channels; set data.neighbours=0")
        if config.volume.grow_mm:
            bone_window(config)
        refuse_mixup(config.augment, config.name)
        super().__init__(config, fold)

    def training_samples(self) -> VolumeSamples:  # type: ignore[override]
        return VolumeSamples(self.training, self.config)

    def prediction_samples(self) -> WindowSamples:  # type: ignore[override]
        return WindowSamples(self.predicted, self.config)

    def loss(self, outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Binary cross entropy of all voxels plus soft Dice of the levels that a window shows."""
        return segmentation_loss(outputs, batch["levels"])

    def predictions(self, logits: np.ndarray) -> pd.DataFrame:
        """The slice table, from the plane logits (windows, 7, depth) of all studies' windows."""
        samples = self.prediction_samples()
        planes = torch.from_numpy(logits).sigmoid().numpy()
        parts = np.split(planes, np.cumsum([len(starts) for starts in samples.starts])[:-1])
        slices = [_slices(*part) for part in zip(samples.grids, samples.starts, parts, strict=True)]
        probabilities = np.concatenate(slices).clip(1e-7, 1 - 1e-7)
        return super().predictions(np.log(probabilities / (1 - probabilities)).astype(np.float32))

    @staticmethod
    def infer(
        models: Sequence[nn.Module],
        config: Config,
        images: StudyImages,
        facts: Sequence[dict[str, Any]],
        device: torch.device,
    ) -> np.ndarray:
        """The probability of each level on each slice, (z, 7)."""
        grid = study_grid(images.z_mm, config)
        windows, starts = study_windows(grid.sample_pixels(images.volume), config)
        batches = ({"image": batch} for batch in _batches(windows, config))
        planes = model_probabilities(models, batches, device, config.train.precision)
        raw = np.stack([_slices(grid, starts, part) for part in planes])
        return mean_in_order(raw, images.z_mm, facts, config.order.evidence_mm)

    @staticmethod
    def map_levels(models: Sequence[nn.Module], config: Config, images: StudyImages, device: torch.device) -> LevelMap:
        """Where the levels are, by the mean of the models; if the config says so each model's map is grown along bone.

        So it is that of a study whose folds' maps are read. Without the order, which knows slices only.
        """
        field_mm = config.preprocess.field_mm
        planes_mm = study_grid(images.z_mm, config).plane_z_mm
        assert field_mm is not None  # or there would be no grid
        if not config.volume.grow_mm:
            return level_map(segment(models, config, images, device), planes_mm, field_mm)
        each = segment_each(models, config, images, device)
        return grow_maps([level_map(one, planes_mm, field_mm) for one in each], images.volume, images.z_mm, config)


def segmentation_loss(outputs: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """The loss of logits (n, 7, z, y, x) against labels 0 to 7 (n, z, y, x); a perfect prediction has 0."""
    names = torch.arange(1, len(LEVELS) + 1, device=levels.device).view(1, -1, 1, 1, 1)
    truth = (levels[:, None] == names).to(outputs.dtype)
    entropy = binary_cross_entropy_with_logits(outputs, truth)
    found, voxels = outputs.sigmoid(), (2, 3, 4)
    volume = truth.sum(voxels)
    overlap = 2 * (found * truth).sum(voxels) + SMOOTH_VOXELS
    dice = overlap / (found.sum(voxels) + volume + SMOOTH_VOXELS)
    shown = (volume > 0).to(outputs.dtype)
    return ENTROPY_WEIGHT * entropy + ((1 - dice) * shown).sum() / shown.sum().clamp(min=1)


def segment(models: Sequence[Any], config: Config, images: StudyImages, device: torch.device) -> np.ndarray:
    """The probability of each level in each voxel of the study's grid, float32 (7, planes, side, side).

    The mean over the models. What lies outside the windows in y and x has 0.
    """
    each = segment_each(models, config, images, device)
    total = next(each)
    for one in each:
        total = total + one
    return total / np.float32(len(models))


@torch.inference_mode()
def segment_each(
    models: Sequence[Any], config: Config, images: StudyImages, device: torch.device
) -> Iterator[np.ndarray]:
    """What `segment` is the mean of, model by model."""
    grid = study_grid(images.z_mm, config)
    windows, starts = study_windows(grid.sample_pixels(images.volume), config)
    for model in models:
        parts = [
            model.eval().segment(torch.from_numpy(batch).to(device)).float().sigmoid().cpu()
            for batch in _batches(windows, config)
        ]
        joined = join_windows(torch.cat(parts).movedim(1, 2).numpy(), starts, grid.shape[0])
        yield put_window(joined.swapaxes(0, 1), 0, grid.shape)


def _slices(grid: Grid, starts: list[int], planes: np.ndarray) -> np.ndarray:
    """Probabilities of the slices (z, 7) from those of the windows' planes (windows, 7, depth)."""
    return grid.to_slices(join_windows(planes.swapaxes(1, 2), starts, grid.shape[0]))


def _batches(windows: np.ndarray, config: Config) -> Iterator[np.ndarray]:
    step = 2 * config.train.batch_size
    for start in range(0, len(windows), step):
        yield windows[start : start + step]
