"""The seam for a new competition: what a task provides, and how one is found by name."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
from torch import nn

from cspine.config import Config
from cspine.data.cache import CachedStudy, bad_studies, open_study
from cspine.data.slices import channels, slice_batch
from cspine.engine.distributed import World
from cspine.engine.loader import Samples
from cspine.errors import UserError
from cspine.level_maps import LevelMap
from cspine.models.backbones import require_size
from cspine.models.registry import create_model
from cspine.models.slice_classifier import SliceClassifier
from cspine.modules import import_module, list_modules
from cspine.paths import folds_file, need
from cspine.tables import STUDY, read_folds

PACKAGE = "cspine.tasks"


@dataclass(frozen=True)
class StudyImages:
    """One study at inference: its volume, uint8 (z, windows, y, x), cranial to caudal, and what stage 1 says of it."""

    volume: np.ndarray
    z_mm: np.ndarray
    spacing_mm: float
    thickness_mm: float | None = None  # as in the header
    # Of stage 1; both are made when a head asks for them, because hardly any needs both.
    find_presence: Callable[[], np.ndarray] | None = None
    level_map: Callable[[], LevelMap] | None = None

    def with_stage1(
        self,
        presence: np.ndarray | Callable[[], np.ndarray] | None,
        level_map: Callable[[], LevelMap] | None = None,
    ) -> "StudyImages":
        """With stage 1's probabilities (z, 7), or how to find them, and how to map the levels in space."""
        found = presence if presence is None or callable(presence) else partial(np.asarray, presence)
        return replace(self, find_presence=found, level_map=level_map)

    @property
    def presence(self) -> np.ndarray | None:
        """Stage 1's probabilities (z, 7)."""
        return None if self.find_presence is None else self.find_presence()

    def presence_for(self, config: Config) -> np.ndarray:
        """`presence`, for a run that cannot do without. Raises ValueError where nobody gave it."""
        if (presence := self.presence) is None:
            raise ValueError(f"{config.name} reads the levels that {config.stage1} finds, and got none")
        return presence

    def batches(self, indices: np.ndarray, config: Config, **others: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
        """These slices, a training batch's double at a time: "image", uint8 (n, channels, size, size), and the rows of
        the `others` (all slices, ...) under their names."""
        step = 2 * config.train.batch_size
        for start in range(0, len(indices), step):
            chosen = indices[start : start + step]
            image = slice_batch(self.volume, self.z_mm, chosen, config.data)
            yield {"image": image, **{name: values[chosen] for name, values in others.items()}}


class Task(Protocol):
    """One training: made from a config and the fold held out (None trains on all data)."""

    outputs: int  # logits of the model
    run_table: str  # file name of the table that all folds together make in oof/<run>/

    def __init__(self, config: Config, fold: int | None) -> None: ...

    def training_samples(self) -> Samples: ...

    def prediction_samples(self) -> Samples: ...

    def model(self) -> nn.Module: ...

    def loss(self, outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor: ...

    def predictions(self, logits: np.ndarray) -> pd.DataFrame:
        """The rows that this fold contributes, from the logits of the prediction samples."""
        ...

    def score(self, predictions: pd.DataFrame) -> dict[str, float]:
        """Figures of merit of this fold's rows, for the log."""
        ...

    def facts(self) -> dict[str, Any]:
        """What inference must know of the training data, as JSON."""
        ...

    @staticmethod
    def infer(
        models: Sequence[nn.Module],
        config: Config,
        images: StudyImages,
        facts: Sequence[dict[str, Any]],
        device: torch.device,
    ) -> np.ndarray:
        """A new study through the folds' models: (z, 7) presence in stage 1, (8,) probabilities in stage 2.

        Of a detector the boxes of each slice (z, boxes, 5), as its model gives them.
        """
        ...

    @staticmethod
    def join(tables: list[pd.DataFrame]) -> pd.DataFrame:
        """The run's table from the folds' tables."""
        ...


@runtime_checkable
class MapsLevels(Protocol):
    """A vertebra task that also knows where the levels are in space, for the heads that look at one level at a time."""

    predicted: list[CachedStudy]

    @staticmethod
    def map_levels(
        models: Sequence[nn.Module], config: Config, images: StudyImages, device: torch.device
    ) -> LevelMap: ...


@dataclass(frozen=True, eq=False)
class Look:
    """What a fracture head sees of one level of a study, for pictures of it."""

    batch: dict[str, np.ndarray]  # of one sample, what the model is called with
    output: int  # the level's logit among the sample's
    planes: Callable[[np.ndarray], np.ndarray]  # of an array like batch["image"] the axial (planes, channels, y, x)
    z_mm: np.ndarray  # (planes,)
    # Left, right, top and bottom of the planes, as shares of the cached square from its upper left.
    frame: tuple[float, float, float, float]
    shown: int | None  # the plane that the head finds most suspicious; None where it judges all of them as one
    # How likely each cell of each plane shows the fracture (planes, cells, cells); None of a head that does not say.
    cells: np.ndarray | None = None


@runtime_checkable
class LooksAtLevels(Protocol):
    """A fracture task that can tell what it sees of a level."""

    @staticmethod
    def look(
        model: nn.Module,
        config: Config,
        images: StudyImages,
        facts: dict[str, Any],
        level: int,
        device: torch.device,
    ) -> Look | None:
        """What one fold's model sees of a level, 0 to 6; None for a level that it does not judge."""
        ...


@runtime_checkable
class Completes(Protocol):
    """A task whose trained model lacks something still, which it is given before it predicts or is saved."""

    def complete(self, model: nn.Module, world: World) -> None:
        """Called in every process."""
        ...


def list_tasks() -> list[str]:
    """The names that a config's `task` may take, without importing torch's models."""
    return [name.replace("_", "/", 1) for name in list_modules(PACKAGE, besides=("base", "detector", "head"))]


def find_task(name: str) -> type[Task]:
    """The class for a task name such as vertebra/image, which is in tasks/vertebra_image.py."""
    allowed = [task.replace("/", "_", 1) for task in list_tasks()]
    return import_module(PACKAGE, name.replace("/", "_", 1), allowed, "task").Task


def folds_in_use(config: Config) -> pd.DataFrame:
    """`folds.csv`: StudyInstanceUID, fold."""
    return read_folds(folds_file(config))


def open_studies(config: Config, folds: pd.DataFrame) -> list[CachedStudy]:
    """The cached studies of these rows, in their order; the ones that prepare listed as unusable are left out."""
    bad = bad_studies(config)
    return [open_study(config, uid) for uid in folds[STUDY] if uid not in bad]


def run_folder(config: Config, run: str | None = None) -> Path:
    """The folder of this run, or of another."""
    return Path(config.paths.oof) / (run or config.name)


def fold_folder(config: Config, fold: int | None, run: str | None = None) -> Path:
    """The folder of a fold (None: of the training on all data) of this run, or of another."""
    return run_folder(config, run) / ("full" if fold is None else f"fold{fold}")


def starting_model(config: Config, fold: int | None, outputs: int) -> nn.Module:
    """The model to train; where `model.pretrained` names a run, on its encoder that did not see this fold either."""
    settings = config.model
    if settings.pretrained == "stage1" and config.stage1 is None:
        raise UserError(f"{config.name}: model.pretrained=stage1 needs the key 'stage1'")
    if (run := config.encoder_run) is not None:
        weights = fold_folder(config, fold, run) / "weights.safetensors"
        which = "full" if fold is None else fold
        need(weights, f"python src/train.py --config <the config named {run}> --fold {which}")
        settings = replace(settings, pretrained=str(weights))
    model = create_model(settings, channels(config), outputs)
    if isinstance(model, SliceClassifier):
        require_size(model.backbone, settings.backbone, channels(config), config.data.image_size_px)
    return model
