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
from cspine.engine.forward import mean_probabilities
from cspine.errors import UserError
from cspine.tables import SLICE_KEYS, STUDY
from cspine.tasks.base import StudyImages, folds_in_use, open_studies, starting_model

TRUTH = [f"{level}_true" for level in LEVELS]


class Task:
    """Trains on the slices of the studies with masks outside the fold.

    Predicts the masked studies of the fold, which it has not seen, and every study without a mask; a study without a
    mask gets the mean over the folds in the run's table, a study with one only its own fold's prediction.
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
        tables = [_slice_rows(study, self.fold) for study in self.predicted]
        table = pd.concat(tables, ignore_index=True)
        table[list(LEVELS)] = torch.from_numpy(logits).sigmoid().numpy()
        return table

    def score(self, predictions: pd.DataFrame) -> dict[str, float]:
        """Mean over slices and levels of "presence right" at 0.5, the measure that the method was reported with."""
        known = predictions[predictions["source"] == "oof"]
        right = (known[list(LEVELS)].to_numpy() > 0.5) == (known[TRUTH].to_numpy() > 0.5)
        return {"accuracy": float(right.mean())} if len(known) else {}

    def facts(self) -> dict[str, Any]:
        return {}

    @staticmethod
    def infer(
        models: Sequence[nn.Module],
        config: Config,
        images: StudyImages,
        facts: Sequence[dict[str, Any]],  # noqa: ARG004 - stage 1 keeps none
        device: torch.device,
    ) -> np.ndarray:
        """The probability of each level on each slice, (z, 7)."""
        batches = images.batches(np.arange(len(images.volume)), config)
        return mean_probabilities(models, batches, device, config.train.precision)

    @staticmethod
    def join(tables: list[pd.DataFrame]) -> pd.DataFrame:
        """Own-fold rows as they are; the mean over the folds where no fold saw a mask."""
        joined = pd.concat(tables, ignore_index=True)
        keys = [*SLICE_KEYS, "fold", "source", *TRUTH]
        return joined.groupby(keys, sort=False, dropna=False)[list(LEVELS)].mean().reset_index()


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


def _slice_rows(study: CachedStudy, fold: int | None) -> pd.DataFrame:
    masked = study.presence is not None
    rows = pd.DataFrame({"file_number": study.geometry.file_numbers, "z_mm": study.geometry.z_mm})
    rows.insert(0, STUDY, study.uid)
    rows["fold"] = fold if masked else -1
    rows["source"] = "oof" if masked else "mean"
    rows[TRUTH] = study.presence.astype(float) if study.presence is not None else np.nan
    return rows
