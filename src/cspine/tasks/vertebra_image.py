"""Which levels are on a slice, from the image alone: seven sigmoids (the method of README, phase 2a)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from cspine.anatomy import LEVELS
from cspine.config import Config
from cspine.data.cache import CachedStudy
from cspine.data.datasets import SliceSamples
from cspine.engine.forward import model_probabilities
from cspine.errors import UserError
from cspine.slice_table import fit_masked, join_slice_tables, mean_in_order, slice_accuracy, slice_table
from cspine.tables import STUDY
from cspine.tasks.base import StudyImages, folds_in_use, open_studies, starting_model


class Task:
    """Trains on the slices of the studies with masks outside the fold.

    Predicts the masked studies of the fold, which it has not seen, and every study without a mask. In the run's table
    a study with a mask has its own fold's prediction, one without that of the model trained on all data (fold None),
    or the mean over the folds where there is no such model.
    """

    outputs = len(LEVELS)
    run_table = "slices.parquet"

    def __init__(self, config: Config, fold: int | None) -> None:
        self.config, self.fold = config, fold
        folds = folds_in_use(config)
        fold_of = dict(zip(folds[STUDY], folds["fold"], strict=True))
        studies = open_studies(config, folds)
        masked = [study for study in studies if study.presence is not None]
        self.training = [study for study in masked if fold_of[study.uid] != fold]
        held_out = [study for study in masked if fold_of[study.uid] == fold]
        self.predicted = held_out + [study for study in studies if study.presence is None]
        if not self.training:
            raise UserError(f"{config.name}: no study outside fold {fold} has a mask; stage 1 cannot be trained")
        self.order = fit_masked(self.training)

    def training_samples(self) -> SliceSamples:
        targets = {"presence": np.concatenate([study.presence for study in self.training]).astype(np.float32)}
        return _samples(self.training, self.config, targets, augmented=True)

    def prediction_samples(self) -> SliceSamples:
        return _samples(self.predicted, self.config, {}, augmented=False)

    def model(self) -> nn.Module:
        return starting_model(self.config, self.fold, self.outputs)

    def loss(self, outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return binary_cross_entropy_with_logits(outputs, batch["presence"])

    def predictions(self, logits: np.ndarray) -> pd.DataFrame:
        """A slice table with the probabilities, the truth where there is a mask, and where each row comes from."""
        probabilities = torch.from_numpy(logits).sigmoid().numpy()
        return slice_table(self.predicted, probabilities, self.fold, self.order, self.config.order.evidence_mm)

    def score(self, predictions: pd.DataFrame) -> dict[str, float]:
        return slice_accuracy(predictions)

    def facts(self) -> dict[str, Any]:
        """The order of the levels in the masks trained on."""
        return {"order": self.order.to_json()}

    @staticmethod
    def infer(
        models: Sequence[nn.Module],
        config: Config,
        images: StudyImages,
        facts: Sequence[dict[str, Any]],
        device: torch.device,
    ) -> np.ndarray:
        """The probability of each level on each slice, (z, 7)."""
        batches = images.batches(np.arange(len(images.volume)), config)
        raw = model_probabilities(models, batches, device, config.train.precision)
        return mean_in_order(raw, images.z_mm, facts, config.order.evidence_mm)

    @staticmethod
    def join(tables: list[pd.DataFrame]) -> pd.DataFrame:
        return join_slice_tables(tables)


def _samples(
    studies: list[CachedStudy], config: Config, targets: dict[str, np.ndarray], augmented: bool
) -> SliceSamples:
    counts = [len(study.volume) for study in studies]
    return SliceSamples(
        studies,
        study=np.repeat(np.arange(len(studies)), counts),
        index=np.concatenate([np.arange(count) for count in counts]) if counts else np.zeros(0, int),
        settings=config.data,
        augment=config.augment if augmented else None,
        targets=targets,
    )
