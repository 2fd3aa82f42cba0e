"""Is there a fracture on a slice, from the image alone (the method of README, phase 3a).

A slice's label is 1 where a level that stage 1 finds on it (v > 0.5) is a fractured level of the study. The study's
p_j = sum_i f_i v_ij / sum_i v_ij over its slices, and the patient's is 1 - prod_j (1 - p_j).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from cspine.aggregate import level_probabilities, levels_seen, overall
from cspine.anatomy import LEVELS, TARGETS
from cspine.config import Config
from cspine.data.cache import CachedStudy
from cspine.data.datasets import SliceSamples
from cspine.data.slices import MINIMUM_PRESENCE, margin_px, visible_slices
from cspine.engine.forward import mean_probabilities
from cspine.errors import UserError
from cspine.paths import need
from cspine.tables import STUDY, read_slices
from cspine.tasks.base import Look, StudyImages, starting_model
from cspine.tasks.head import FractureHead, mean_priors


class Task(FractureHead):
    """Trains on the studies outside the fold and predicts every study of the fold."""

    outputs = 1

    def __init__(self, config: Config, fold: int | None) -> None:
        super().__init__(config, fold)
        self.presence = read_presence(config)
        self.fit_priors({study.uid: self._judged(study) for study in self.training})

    def training_samples(self) -> SliceSamples:
        return self._samples(self.training, augmented=True)

    def prediction_samples(self) -> SliceSamples:
        return self._samples(self.predicted, augmented=False)

    def model(self) -> nn.Module:
        return starting_model(self.config, self.fold, self.outputs)

    def loss(self, outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        # Linear in the label, so that the loss of a mixed sample is the mix of the losses.
        fractured, weight = batch["fractured"], self.config.train.positive_weight
        total = binary_cross_entropy_with_logits(
            outputs.view_as(fractured), fractured, pos_weight=fractured.new_tensor(weight), reduction="sum"
        )
        return total / (1 + (weight - 1) * fractured).sum()

    def predictions(self, logits: np.ndarray) -> pd.DataFrame:
        """A study table; a study without usable images gets the priors."""
        fractured = self.fractured(torch.from_numpy(logits).sigmoid().numpy())
        samples, clearest_mm = self.prediction_samples(), self.config.aggregate.clearest_mm
        rows = {}
        for number, study in enumerate(self.predicted):
            mine = samples.study == number
            seen = self.presence[study.uid][samples.index[mine]]
            rows[study.uid] = study_row(fractured[mine], seen, study.geometry.spacing_mm, self.priors, clearest_mm)
        return self.study_table(rows)

    @staticmethod
    def fractured(probabilities: np.ndarray) -> np.ndarray:
        """The probability of a fracture on each slice, (n,) or for each level (n, 7), of all outputs (n, outputs)."""
        return probabilities[:, 0]

    @staticmethod
    def inputs(presence: np.ndarray) -> dict[str, np.ndarray]:  # noqa: ARG004
        """What the model is given beside the images, of stage 1's probabilities (n, 7)."""
        return {}

    @classmethod
    def infer(
        cls,
        models: Sequence[nn.Module],
        config: Config,
        images: StudyImages,
        facts: Sequence[dict[str, Any]],
        device: torch.device,
    ) -> np.ndarray:
        """The study's eight probabilities; a level that stage 1 does not find gets the mean prior of the folds."""
        priors = mean_priors(facts)
        fractured, presence = cls.judge_slices(models, config, images, device)
        if not len(fractured):
            return np.array([priors[target] for target in TARGETS])
        return study_row(fractured, presence, images.spacing_mm, priors, config.aggregate.clearest_mm)

    @classmethod
    def judge_slices(
        cls, models: Sequence[nn.Module], config: Config, images: StudyImages, device: torch.device
    ) -> tuple[np.ndarray, np.ndarray]:
        """f, (n,) or (n, 7), of the slices on which stage 1 sees a level at all, and its v (n, 7)."""
        presence = images.presence_for(config)
        kept = np.flatnonzero(visible_slices(presence))
        if not len(kept):
            return np.zeros(0), presence[kept]
        batches = images.batches(kept, config, **cls.inputs(presence))
        return cls.fractured(mean_probabilities(models, batches, device, config.train.precision)), presence[kept]

    @classmethod
    def look(
        cls,
        model: nn.Module,
        config: Config,
        images: StudyImages,
        facts: dict[str, Any],  # noqa: ARG003
        level: int,
        device: torch.device,
    ) -> Look | None:
        """The slice that counts most towards the level: the greatest f_ij v_ij."""
        seen_by_stage1 = images.presence_for(config)
        others, presence = cls.inputs(seen_by_stage1), seen_by_stage1[:, level]
        seen = np.flatnonzero(presence > MINIMUM_PRESENCE)
        if not len(seen):
            return None
        batches = images.batches(seen, config, **others)
        fractured = cls.fractured(mean_probabilities([model], batches, device, config.train.precision))
        output = level if fractured.ndim == 2 else 0
        most = seen[(fractured.reshape(len(seen), -1)[:, output] * presence[seen]).argmax()]
        batch = next(images.batches(np.array([most]), config, **others))
        side = images.volume.shape[-1]
        margin = margin_px(side, config.data) / side
        frame = (margin, 1 - margin, margin, 1 - margin)
        return Look(batch, output, lambda image: image, images.z_mm[[most]], frame, shown=0)

    def _samples(self, studies: list, augmented: bool) -> SliceSamples:
        kept = [np.flatnonzero(visible_slices(self._presence_of(study))) for study in studies]
        presence = [self.presence[study.uid][index] for study, index in zip(studies, kept, strict=True)]
        fractured = [
            np.tile(self.labels.loc[study.uid, list(LEVELS)].to_numpy(np.float32), (len(index), 1))
            for study, index in zip(studies, kept, strict=True)
        ]
        none = np.zeros((0, len(LEVELS)), np.float32)
        seen: np.ndarray = np.concatenate([none, *presence]).astype(np.float32)
        return SliceSamples(
            studies,
            study=np.repeat(np.arange(len(studies)), [len(index) for index in kept]),
            index=np.concatenate(kept) if kept else np.zeros(0, int),
            settings=self.config.data,
            augment=self.config.augment if augmented else None,
            targets=self.targets(seen, np.concatenate([none, *fractured])) | self.inputs(seen),
        )

    def _judged(self, study: CachedStudy) -> np.ndarray:
        return levels_seen(self._presence_of(study), study.geometry.spacing_mm)

    def _presence_of(self, study: Any) -> np.ndarray:
        presence = self.presence.get(study.uid)
        if presence is None or len(presence) != len(study.volume):
            raise UserError(
                f"{self.config.stage1}: its slice table does not fit study {study.uid} in the cache; "
                "train the vertebra run again (--restart)"
            )
        return presence

    @staticmethod
    def targets(presence: np.ndarray, fractured: np.ndarray) -> dict[str, np.ndarray]:
        """What the loss compares with, of stage 1's probabilities and the study's labels, both (n, 7)."""
        shown = np.any((presence > 0.5) & (fractured > 0), axis=1)
        return {"fractured": np.asarray(shown, np.float32)}


def study_row(
    fractured: np.ndarray,
    presence: np.ndarray,
    spacing_mm: float,
    priors: dict[str, float],
    clearest_mm: float | None,
) -> np.ndarray:
    """The eight probabilities from those of the slices, (n,) or (n, 7), and stage 1's (n, 7)."""
    level_priors = [priors[level] for level in LEVELS]
    levels = level_probabilities(fractured, presence, spacing_mm, level_priors, clearest_mm=clearest_mm)
    return np.array([overall(levels), *levels])


def read_presence(config: Config) -> dict[str, np.ndarray]:
    """Stage 1's probabilities (slices, 7) of every study, cranial to caudal."""
    if config.stage1 is None:
        raise UserError(f"{config.name}: the key 'stage1' must name the vertebra run whose slice table to read")
    command = f"python src/train.py --config <the config named {config.stage1}> --fold all"
    table = read_slices(need(Path(config.paths.oof) / config.stage1 / "slices.parquet", command))
    ordered = table.sort_values("z_mm", ascending=False, kind="stable")
    return {uid: rows[list(LEVELS)].to_numpy() for uid, rows in ordered.groupby(STUDY, sort=False)}
