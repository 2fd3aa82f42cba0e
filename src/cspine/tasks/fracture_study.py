"""Which levels are fractured, and the patient, from images of all levels at once (the competition's first place).

The images of fracture/sequence, of all levels that stage 1 maps, through one encoder and one recurrent network; beside
the levels' a logit of the patient from what was seen of all of them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from cspine.anatomy import LEVELS, TARGETS
from cspine.config import Config
from cspine.data.cache import CachedStudy
from cspine.data.level_crops import LevelPlace, crop_frame, cut_level, image_z_mm
from cspine.data.study_samples import StudySamples, all_levels
from cspine.engine.forward import mean_probabilities
from cspine.errors import UserError
from cspine.tasks import fracture_sequence
from cspine.tasks.base import Look, StudyImages
from cspine.tasks.fracture_sequence import as_cells, is_judged, judged_levels
from cspine.tasks.head import blended_row, mean_priors, study_loss


class Task(fracture_sequence.Task):
    """Trains on the studies outside the fold in which levels are found and predicts every study of the fold."""

    outputs = len(TARGETS)
    model_name = "study_classifier"

    def __init__(self, config: Config, fold: int | None) -> None:
        if config.crop.negatives is not None:
            raise UserError(f"{config.name}: {config.task} trains on whole patients; set crop.negatives=null")
        super().__init__(config, fold)

    def training_samples(self) -> StudySamples:  # type: ignore[override]
        return self._study_samples(self.training, augmented=True)

    def prediction_samples(self) -> StudySamples:  # type: ignore[override]
        return self._study_samples(self.predicted, augmented=False)

    def loss(self, outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The patients' and the levels' cross entropy, alike, and `crop.boxes` times that of the images known."""
        weight = batch["weight"]
        total = study_loss(outputs[:, : len(TARGETS)], batch["fractured"], weight, self.config.train.positive_weight)
        return total + self._box_loss(outputs[:, len(TARGETS) :], batch, weight[:, 1:, None])

    def predictions(self, logits: np.ndarray) -> pd.DataFrame:
        """A study table; a level that is not found, or a study without any, gets its prior."""
        samples = self.prediction_samples()
        probabilities = torch.from_numpy(logits[:, : len(TARGETS)]).sigmoid().numpy()
        rows = {
            study.uid: blended_row(found, is_found, self.priors, self.config)
            for study, found, is_found in zip(samples.studies, probabilities, samples.found, strict=True)
        }
        return self.study_table(rows)

    @staticmethod
    def infer(
        models: Sequence[nn.Module],
        config: Config,
        images: StudyImages,
        facts: Sequence[dict[str, Any]],
        device: torch.device,
    ) -> np.ndarray:
        """The study's eight probabilities; a level that stage 1 does not find gets the mean prior of the folds."""
        places, priors = judged_levels(config, images, facts), mean_priors(facts)
        found = is_judged(places)
        if not found.any():
            return np.array([priors[target] for target in TARGETS])
        batch = _batch(places, images, config)
        told = mean_probabilities(models, [batch], device, config.train.precision)[0]
        return blended_row(told[: len(TARGETS)], found, priors, config)

    @staticmethod
    def look(
        model: nn.Module,
        config: Config,
        images: StudyImages,
        facts: dict[str, Any],
        level: int,
        device: torch.device,
    ) -> Look | None:
        """The level's images among the patient's, of which the one with the greatest logit is shown."""
        places = judged_levels(config, images, [facts])
        if (place := places[level]) is None:
            return None
        batch = _batch(places, images, config)
        told = mean_probabilities([model], [batch], device, config.train.precision)[0, len(TARGETS) :]
        singles, cells = np.split(told, [len(LEVELS) * config.crop.slices])
        return Look(
            batch,
            output=1 + level,
            planes=lambda image: image[0, level, :, :-1],
            z_mm=image_z_mm(place, config),
            frame=crop_frame(place, config),
            shown=int(singles.reshape(len(LEVELS), -1)[level].argmax()),
            cells=as_cells(cells.reshape(len(LEVELS), -1)[level], config) if config.model.cells else None,
        )

    def _study_samples(self, studies: list[CachedStudy], augmented: bool) -> StudySamples:
        levels = self._samples(studies, augmented)
        labels = self.labels.loc[[study.uid for study in studies], list(TARGETS)].to_numpy()
        positions = np.full((len(studies), len(LEVELS)), -1)
        judged = [is_judged(self._judged(study.uid)) for study in studies]
        positions[np.array(judged, bool).reshape(positions.shape)] = np.arange(len(levels))
        return StudySamples(levels, positions, labels)


def _batch(places: Sequence[LevelPlace | None], images: StudyImages, config: Config) -> dict[str, np.ndarray]:
    """One patient, at least one of whose levels has a place."""
    cut = [None if place is None else cut_level(images.volume, images.z_mm, place, config) for place in places]
    found = np.array([place is not None for place in places], np.float32)
    return {"image": all_levels(cut)[None], "found": found[None]}
