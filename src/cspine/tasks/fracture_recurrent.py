"""Which levels are fractured, and the patient, from all slices of the neck (the second half of the third place).

A recurrent network with attention, on what the encoder of another run (`model.pretrained=run:fracture-soft`), frozen,
makes of slices evenly spaced in mm, and on stage 1's probabilities. It is trained on the competition's metric itself.
As the slices go through the encoder once, before the training, they are not augmented.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from cspine.aggregate import levels_seen
from cspine.anatomy import TARGETS
from cspine.config import Config, differences, to_dict
from cspine.data.cache import CachedStudy
from cspine.data.datasets import SliceSamples
from cspine.data.slices import slice_batch
from cspine.data.sweeps import SweepSamples, sweep_indices
from cspine.engine.distributed import World, own_device
from cspine.engine.forward import mean_probabilities
from cspine.engine.loop import predict
from cspine.errors import UserError
from cspine.metrics import column_weights
from cspine.paths import read_json
from cspine.tasks import fracture_slice
from cspine.tasks.base import StudyImages, fold_folder, starting_model
from cspine.tasks.head import blended_row, mean_priors, require_model

# What makes an image of a slice, beside the preprocessing.
IMAGE_KEYS = ("image_size_px", "centre_share", "neighbours", "neighbour_step_mm")


class Task(fracture_slice.Task):
    """Trains on the studies outside the fold in which stage 1 sees a level and predicts every study of the fold."""

    outputs = len(TARGETS)
    look = None  # type: ignore[assignment]  # it judges all slices at once, by their features

    def __init__(self, config: Config, fold: int | None) -> None:
        require_model(config, "recurrent_classifier")
        if config.model.pretrained is None:
            raise UserError(
                f"{config.name}: the encoder of {config.task} is frozen and must know something; set model.pretrained, "
                "for instance to run:fracture-soft"
            )
        super().__init__(config, fold)
        studies = (*self.training, *self.predicted)
        chosen = {study.uid: self._chosen(study) for study in studies}
        self.training = [study for study in self.training if len(chosen[study.uid])]
        self.predicted = [study for study in self.predicted if len(chosen[study.uid])]
        self.chosen, self.features = chosen, self._features(chosen)

    def training_samples(self) -> SweepSamples:  # type: ignore[override]
        return self._sweeps(self.training)

    def prediction_samples(self) -> SweepSamples:  # type: ignore[override]
        return self._sweeps(self.predicted)

    def loss(self, outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The competition's loss, column by column; `train.positive_weight` is the metric's own."""
        entropy = binary_cross_entropy_with_logits(outputs, batch["fractured"], reduction="none")
        return (entropy * batch["weight"]).sum(dim=1).mean()

    def predictions(self, logits: np.ndarray) -> pd.DataFrame:
        """A study table; a level that stage 1 does not see gets its prior."""
        probabilities = torch.from_numpy(logits).sigmoid().numpy()
        rows = {
            study.uid: blended_row(found, self._judged(study), self.priors, self.config)
            for study, found in zip(self.predicted, probabilities, strict=True)
        }
        return self.study_table(rows)

    @classmethod
    def infer(
        cls,
        models: Sequence[nn.Module],
        config: Config,
        images: StudyImages,
        facts: Sequence[dict[str, Any]],
        device: torch.device,
    ) -> np.ndarray:
        """The study's eight probabilities; a level that stage 1 does not see gets the mean prior of the folds."""
        priors, presence = mean_priors(facts), images.presence_for(config)
        chosen = sweep_indices(images.z_mm, presence, config.sweep)
        if not len(chosen):
            return np.array([priors[target] for target in TARGETS])
        batch = {
            "image": slice_batch(images.volume, images.z_mm, chosen, config.data)[None],
            "attributes": presence[chosen].astype(np.float32)[None],
            "found": np.ones((1, len(chosen)), np.float32),
        }
        found = mean_probabilities(models, [batch], device, config.train.precision)[0]
        return blended_row(found, levels_seen(presence, images.spacing_mm), priors, config)

    def _chosen(self, study: CachedStudy) -> np.ndarray:
        return sweep_indices(study.geometry.z_mm, self._presence_of(study), self.config.sweep)

    def _features(self, chosen: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the encoder makes of the chosen slices of every study, float16 (n, width) by study."""
        studies = [*self.training, *self.predicted]
        if not studies:
            return {}
        require_same_images(self.config, self.fold)
        model: Any = starting_model(self.config, self.fold, self.outputs)
        device = own_device(self.config.train.device)
        # A slice that a thick stack shows several times goes through the encoder once.
        single = [np.unique(chosen[study.uid]) for study in studies]
        samples = SliceSamples(
            studies,
            study=np.repeat(np.arange(len(studies)), [len(index) for index in single]),
            index=np.concatenate([np.zeros(0, int), *single]),
            settings=self.config.data,
        )
        found = predict(model.encoder.to(device), samples, self.config, World(0, 1, device)).astype(np.float16)
        if not np.isfinite(found).all():
            raise UserError(f"{self.config.name}: features of {self.config.model.backbone} do not fit into float16")
        parts = np.split(found, np.cumsum([len(index) for index in single])[:-1])
        return {
            study.uid: part[np.searchsorted(index, chosen[study.uid])]
            for study, index, part in zip(studies, single, parts, strict=True)
        }

    def _sweeps(self, studies: list[CachedStudy]) -> SweepSamples:
        labels = self.labels.loc[[study.uid for study in studies]].to_numpy()
        counted = np.ones(labels.shape, bool)
        counted[:, 1:] = np.array([self._judged(study) for study in studies]).reshape(counted[:, 1:].shape)
        return SweepSamples(
            features=[self.features[study.uid] for study in studies],
            presence=[self.presence[study.uid][self.chosen[study.uid]] for study in studies],
            fractured=labels,
            weight=column_weights(labels, counted),
            slices=self.config.sweep.slices,
        )


def require_same_images(config: Config, fold: int | None) -> None:
    """Raises UserError where the encoder comes from a run that saw other images than this config makes."""
    if config.encoder_run is None:
        return
    file = fold_folder(config, fold, config.encoder_run) / "config.json"
    if file.exists():
        seen, made = (_image_settings(values) for values in (read_json(file), to_dict(config)))
        if changed := differences(seen, made):
            raise UserError(
                f"{config.name}: the encoder of {config.encoder_run} is frozen and saw other images "
                f"({'; '.join(changed[:3])}); set these keys to its values"
            )


def _image_settings(values: dict[str, Any]) -> dict[str, Any]:
    return {"preprocess": values["preprocess"], "data": {key: values["data"][key] for key in IMAGE_KEYS}}
