"""Is a level fractured, and the patient, from the whole stack at once (the method of README, phase 3d).

A 3-D network sees one window of fixed size in mm (data/stacks.py) and says eight things: the patient's and the levels'.
It needs no labels of vertebrae. With `stage1` the window lies about the levels that a vertebra/volume run maps, and
those that it does not find are neither trained on nor judged.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from cspine.anatomy import TARGETS
from cspine.config import Config
from cspine.data.cache import CachedStudy
from cspine.data.mixup import refuse_mixup
from cspine.data.stacks import StackSamples, StackView, stack_view, stack_window, window_frame, window_z_mm
from cspine.engine.forward import mean_probabilities
from cspine.errors import UserError
from cspine.tasks.base import Look, StudyImages, starting_model
from cspine.tasks.fracture_sequence import judged_levels, level_places, usual_volumes_mm3, whole_levels
from cspine.tasks.head import FractureHead, blended_row, mean_priors, require_model, study_loss


class Task(FractureHead):
    """Trains on the studies outside the fold and predicts every study of the fold."""

    outputs = len(TARGETS)

    def __init__(self, config: Config, fold: int | None) -> None:
        require_model(config, "volume_classifier")
        if config.data.neighbours:
            raise UserError(f"{config.name}: a volume has no neighbouring slices as channels; set data.neighbours=0")
        refuse_mixup(config.augment, config.name)
        super().__init__(config, fold)
        studies = (*self.training, *self.predicted)
        places = {study.uid: level_places(config, study) for study in studies} if config.stage1 else {}
        self.volumes_mm3 = usual_volumes_mm3([places[study.uid] for study in self.training if places])
        whole = {uid: whole_levels(found, self.volumes_mm3, config) for uid, found in places.items()}
        self.views = {study.uid: stack_view(study.geometry.z_mm, whole.get(study.uid), config) for study in studies}
        self.fit_priors({study.uid: self.views[study.uid].judged for study in self.training})

    def training_samples(self) -> StackSamples:
        return self._samples(self.training, augmented=True)

    def prediction_samples(self) -> StackSamples:
        return self._samples(self.predicted, augmented=False)

    def model(self) -> nn.Module:
        return starting_model(self.config, self.fold, self.outputs)

    def loss(self, outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return study_loss(outputs, batch["fractured"], batch["weight"], self.config.train.positive_weight)

    def predictions(self, logits: np.ndarray) -> pd.DataFrame:
        """A study table; a level that is not judged gets its prior."""
        probabilities = torch.from_numpy(logits).sigmoid().numpy()
        rows = {
            study.uid: blended_row(found, self.views[study.uid].judged, self.priors, self.config)
            for study, found in zip(self.predicted, probabilities, strict=True)
        }
        return self.study_table(rows)

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "volumes_mm3": self.volumes_mm3.tolist()}

    @staticmethod
    def infer(
        models: Sequence[nn.Module],
        config: Config,
        images: StudyImages,
        facts: Sequence[dict[str, Any]],
        device: torch.device,
    ) -> np.ndarray:
        """The study's eight probabilities; a level that is not judged gets the mean prior of the folds."""
        view = _view(config, images, facts)
        window = stack_window(images.volume, images.z_mm, view.middle_mm, config)
        found = mean_probabilities(models, [{"image": window[None]}], device, config.train.precision)[0]
        return blended_row(found, view.judged, mean_priors(facts), config)

    @staticmethod
    def look(
        model: nn.Module,  # noqa: ARG004
        config: Config,
        images: StudyImages,
        facts: dict[str, Any],
        level: int,
        device: torch.device,  # noqa: ARG004
    ) -> Look | None:
        """The whole window; it tells by itself no plane from another."""
        view = _view(config, images, [facts])
        if not view.judged[level]:
            return None
        window = stack_window(images.volume, images.z_mm, view.middle_mm, config)
        z_mm = window_z_mm(images.z_mm, view.middle_mm, config)
        frame = window_frame(images.z_mm, config)
        return Look({"image": window[None]}, 1 + level, lambda image: image[0].swapaxes(0, 1), z_mm, frame, None)

    def _samples(self, studies: list[CachedStudy], augmented: bool) -> StackSamples:
        views = [self.views[study.uid] for study in studies]
        labels = self.labels.loc[[study.uid for study in studies]].to_numpy()
        return StackSamples(studies, views, labels, self.config, augmented)


def _view(config: Config, images: StudyImages, facts: Sequence[dict[str, Any]]) -> StackView:
    if not config.stage1:
        return stack_view(images.z_mm, None, config)
    return stack_view(images.z_mm, judged_levels(config, images, facts), config)
