"""Is a level fractured, from a sequence of images of it alone (the head of the competition's first place).

A level is where stage 1 maps it (level_maps.py). Its probability comes from images evenly spaced over its extent, with
its mask as a channel, through an encoder and a recurrent network. The patient's is 1 - prod_j (1 - p_j).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from cspine.aggregate import overall
from cspine.anatomy import LEVELS, TARGETS
from cspine.config import Config
from cspine.data.boxes import StudyBoxes, place_boxes
from cspine.data.cache import CachedStudy
from cspine.data.layout import box_file
from cspine.data.level_cells import UNKNOWN, cells_per_side
from cspine.data.level_crops import LevelPlace, crop_frame, cut_level, find_levels, image_z_mm
from cspine.data.level_samples import Level, LevelSamples, slices_known
from cspine.data.slices import channels
from cspine.engine.forward import mean_probabilities
from cspine.level_maps import stage1_level_map
from cspine.models.backbones import require_size
from cspine.paths import find_dataset
from cspine.tables import STUDY, read_boxes
from cspine.tasks.base import Look, StudyImages, starting_model
from cspine.tasks.head import FractureHead, mean_priors, require_model, weighted_entropy

# Of an image's cells one in a hundred or so shows a fracture: what they cost beside their level, and such a cell beside
# the others. Chosen on single levels of phantoms.
CELLS_WEIGHT, CELL_POSITIVE_WEIGHT = 80.0, 12.0


class Task(FractureHead):
    """Trains on the levels found in the studies outside the fold and predicts every study of the fold."""

    outputs = 1
    model_name = "sequence_classifier"

    def __init__(self, config: Config, fold: int | None) -> None:
        require_model(config, self.model_name)
        super().__init__(config, fold)
        self.places = {study.uid: level_places(config, study) for study in (*self.training, *self.predicted)}
        self.volumes_mm3 = usual_volumes_mm3([self.places[study.uid] for study in self.training])
        self.fit_priors({study.uid: is_judged(self._judged(study.uid)) for study in self.training})

    def training_samples(self) -> LevelSamples:
        return self._samples(self.training, augmented=True)

    def prediction_samples(self) -> LevelSamples:
        return self._samples(self.predicted, augmented=False)

    def model(self) -> nn.Module:
        model = starting_model(self.config, self.fold, self.outputs)
        size_px, backbone = self.config.data.image_size_px, self.config.model.backbone
        require_size(model.backbone, backbone, channels(self.config) + 1, size_px)  # type: ignore[arg-type]
        return model

    def loss(self, outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The weighted cross entropy of the levels, and `crop.boxes` times that of the images of which is known."""
        fractured, weight = batch["fractured"], batch["weight"]
        total = weighted_entropy(outputs[:, 0], fractured, weight, self.config.train.positive_weight)
        return total + self._box_loss(outputs[:, 1:], batch, weight[:, None])

    def _box_loss(self, outputs: torch.Tensor, batch: dict[str, torch.Tensor], weight: torch.Tensor) -> torch.Tensor:
        """`crop.boxes` times the weighted cross entropy of images and cells of which is known what they show."""
        if not self.config.crop.boxes:
            return outputs.new_zeros(())
        slices, positive_weight = batch["slices"], self.config.train.positive_weight
        images = outputs[:, : slices[0].numel()].reshape(slices.shape)
        known = (slices != UNKNOWN).to(outputs.dtype) * weight
        total = weighted_entropy(images, slices.clamp(min=0), known, positive_weight)
        if "cells" in batch:
            total = total + self._cell_loss(outputs[:, slices[0].numel() :], batch["cells"], weight)
        return self.config.crop.boxes * total

    @staticmethod
    def _cell_loss(outputs: torch.Tensor, cells: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        truth = cells.to(outputs.dtype)
        known = (truth != UNKNOWN).to(outputs.dtype) * weight[..., None, None]
        logits = outputs.reshape(truth.shape)
        return CELLS_WEIGHT * weighted_entropy(logits, truth.clamp(min=0), known, CELL_POSITIVE_WEIGHT)

    def predictions(self, logits: np.ndarray) -> pd.DataFrame:
        """A study table; a level that is not found gets its prior."""
        levels = iter(torch.from_numpy(logits[:, 0]).sigmoid().numpy())
        rows = {study.uid: study_row(self._judged(study.uid), levels, self.priors) for study in self.predicted}
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
        """The study's eight probabilities; a level that stage 1 does not find gets the mean prior of the folds."""
        judged = judged_levels(config, images, facts)
        found = iter(())
        if any(judged):
            batches = _batches([place for place in judged if place is not None], images, config)
            found = iter(mean_probabilities(models, batches, device, config.train.precision)[:, 0])
        return study_row(judged, found, mean_priors(facts))

    @staticmethod
    def look(
        model: nn.Module,
        config: Config,
        images: StudyImages,
        facts: dict[str, Any],
        level: int,
        device: torch.device,
    ) -> Look | None:
        """The level's images, of which the one with the greatest logit is shown, if they have any of their own."""
        place = judged_levels(config, images, [facts])[level]
        if place is None:
            return None
        batch = next(_batches([place], images, config))
        told = mean_probabilities([model], [batch], device, config.train.precision)[0, 1:]
        singles, cells = told[: config.crop.slices], told[config.crop.slices :]
        return Look(
            batch,
            output=0,
            planes=lambda image: image[0, :, :-1],
            z_mm=image_z_mm(place, config),
            frame=crop_frame(place, config),
            shown=int(singles.argmax()) if len(singles) else None,
            cells=as_cells(cells, config) if config.model.cells else None,
        )

    def _judged(self, uid: str) -> list[LevelPlace | None]:
        return whole_levels(self.places[uid], self.volumes_mm3, self.config)

    def _samples(self, studies: list[CachedStudy], augmented: bool) -> LevelSamples:
        boxes = self._boxes(studies) if augmented and self.config.crop.boxes else {}
        levels = []
        for number, study in enumerate(studies):
            labels = self.labels.loc[study.uid, list(LEVELS)].to_numpy(float)
            for place, fractured in zip(self._judged(study.uid), labels, strict=True):
                if place is not None:
                    known = slices_known(place, fractured > 0, boxes.get(study.uid), study, self.config)
                    levels.append(Level(number, place, float(fractured), known))
        return LevelSamples(studies, levels, self.config, self.config.augment if augmented else None)

    def _boxes(self, studies: list[CachedStudy]) -> dict[str, StudyBoxes]:
        """The boxes of the studies that have any."""
        table = read_boxes(box_file(find_dataset(self.config)))
        known = {study.uid: study for study in studies}
        return {
            str(uid): place_boxes(rows, known[str(uid)].geometry, known[str(uid)].slice_shape)
            for uid, rows in table.groupby(STUDY)
            if uid in known
        }


def as_cells(told: np.ndarray, config: Config) -> np.ndarray:
    """(planes, cells, cells) of what a model told of the cells of a level's images, one after the other."""
    side = cells_per_side(config.data.image_size_px)
    return told.reshape(-1, side, side)


def usual_volumes_mm3(places: Sequence[Sequence[LevelPlace | None]]) -> np.ndarray:
    """(7,) the median volume of each level over the studies; 0 for one that is never found."""
    volumes = [[place.volume_mm3 for place in level if place] for level in zip(*places, strict=True)]
    return np.array([np.median(found) if found else 0.0 for found in volumes] or [0.0] * len(LEVELS))


def whole_levels(
    places: Sequence[LevelPlace | None], volumes_mm3: np.ndarray, config: Config
) -> list[LevelPlace | None]:
    """The places of the levels that are found to at least `crop.least_share` of their usual volume; else None."""
    least = config.crop.least_share * volumes_mm3
    return [place if place and place.volume_mm3 >= low else None for place, low in zip(places, least, strict=True)]


def is_judged(places: Sequence[LevelPlace | None]) -> np.ndarray:
    """bool (7,): the levels that have a place."""
    return np.array([place is not None for place in places])


def judged_levels(config: Config, images: StudyImages, facts: Sequence[dict[str, Any]]) -> list[LevelPlace | None]:
    """The places of the levels of a study that the folds with these facts judge."""
    if images.level_map is None:
        raise ValueError(f"{config.name} reads the levels that {config.stage1} maps, and got none")
    volumes_mm3 = np.mean([fact["volumes_mm3"] for fact in facts], axis=0)
    return whole_levels(find_levels(images.level_map(), config.crop.threshold), volumes_mm3, config)


def study_row(judged: Sequence[LevelPlace | None], found: Iterator[float], priors: dict[str, float]) -> np.ndarray:
    """The eight probabilities: the next of the found ones for each level that was judged, the prior for the others."""
    chosen = zip(judged, LEVELS, strict=True)
    levels = np.array([priors[level] if place is None else next(found) for place, level in chosen], float)
    row = np.array([overall(levels), *levels])
    assert len(row) == len(TARGETS)
    return row


def level_places(config: Config, study: CachedStudy) -> list[LevelPlace | None]:
    """Where stage 1 finds the levels of a study."""
    found = stage1_level_map(config, study.uid, study.geometry.z_mm)
    return find_levels(found, config.crop.threshold)


def _batches(places: Sequence[LevelPlace], images: StudyImages, config: Config) -> Iterator[dict[str, np.ndarray]]:
    step = 2 * config.train.batch_size
    for start in range(0, len(places), step):
        cut = [cut_level(images.volume, images.z_mm, place, config) for place in places[start : start + step]]
        yield {"image": np.stack(cut)}
