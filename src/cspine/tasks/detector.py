"""What the tasks that find boxes share: which slices teach, and the table of boxes (README, the method, phase 4).

Trained on the boxes of the data set's few annotated studies and on slices that certainly show no fracture; every slice
on which stage 1 sees a level is searched.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from cspine.anatomy import LEVELS, TARGETS
from cspine.config import Config
from cspine.data.box_samples import BoxSamples, boxes_in_image, corners_in_volume, slices_to_learn
from cspine.data.boxes import StudyBoxes, place_boxes
from cspine.data.cache import CachedStudy
from cspine.data.datasets import SliceSamples
from cspine.data.geometry import Geometry
from cspine.data.layout import box_file
from cspine.data.preprocess import Crop
from cspine.data.slices import visible_slices
from cspine.engine.forward import model_outputs
from cspine.lesions import levels_by_presence
from cspine.localisation import mean_iou
from cspine.models.detector import KEPT, fuse
from cspine.paths import find_dataset, need, read_json
from cspine.runs import ENSEMBLE
from cspine.tables import FOUND_BOXES, STUDY, read_boxes, read_labels, read_study_table
from cspine.tasks.base import StudyImages, folds_in_use, open_studies, starting_model
from cspine.tasks.fracture_slice import read_presence
from cspine.tasks.head import require_model


class DetectorTask:
    """Trains on the studies outside the fold and searches every study of the fold."""

    outputs = 1
    run_table = "boxes.csv"
    model_name: str

    def __init__(self, config: Config, fold: int | None) -> None:
        require_model(config, self.model_name)
        self.config, self.fold = config, fold
        folds = folds_in_use(config)
        held_out = folds["fold"] == fold
        self.training, self.predicted = open_studies(config, folds[~held_out]), open_studies(config, folds[held_out])
        dataset = find_dataset(config)
        self.labels = read_labels(dataset / "train.csv").set_index(STUDY)[list(TARGETS)]
        self.boxes = {str(uid): rows for uid, rows in read_boxes(box_file(dataset)).groupby(STUDY)}
        self.presence = read_presence(config)

    def training_samples(self) -> BoxSamples:
        placed = [self._placed(study) for study in self.training]
        taught = [self._slices_to_learn(study, boxes) for study, boxes in zip(self.training, placed, strict=True)]
        boxes = [
            boxes_in_image(found.boxes, study.crop, self.config.data)[index]
            for study, found, index in zip(self.training, placed, taught, strict=True)
        ]
        return BoxSamples(
            self.training,
            study=np.repeat(np.arange(len(taught)), [len(index) for index in taught]),
            index=np.concatenate([np.zeros(0, int), *taught]),
            settings=self.config.data,
            augment=self.config.augment,
            boxes=np.concatenate([np.zeros((0, 4)), *boxes]),
            negatives=self.config.localise.negatives,
        )

    def prediction_samples(self) -> SliceSamples:
        fractured = decided_levels(self.config) if self.config.localise.search == "fractured" else {}
        kept = [self._slices_to_search(study.uid, fractured.get(study.uid)) for study in self.predicted]
        return SliceSamples(
            self.predicted,
            study=np.repeat(np.arange(len(kept)), [len(index) for index in kept]),
            index=np.concatenate([np.zeros(0, int), *kept]),
            settings=self.config.data,
        )

    def model(self) -> nn.Module:
        return starting_model(self.config, self.fold, self.outputs)

    def loss(self, outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:  # noqa: ARG002
        """The sum of its parts, which the model makes itself, because it chooses the places that it learns from."""
        return outputs.sum()

    def predictions(self, logits: np.ndarray) -> pd.DataFrame:
        """The boxes found in the fold's studies that score at least `localise.least_score`."""
        samples = self.prediction_samples()
        tables = [pd.DataFrame(columns=list(FOUND_BOXES))]
        for number, study in enumerate(self.predicted):
            mine = samples.study == number
            found = np.zeros((len(study.geometry.z_mm), KEPT, 5), np.float32)
            found[samples.index[mine]] = logits[mine].reshape(-1, KEPT, 5)
            presence = self.presence[study.uid]
            tables.append(found_boxes(found, presence, study.uid, study.geometry, study.crop, self.config))
        return pd.concat([table for table in tables if len(table)] or tables, ignore_index=True)

    def score(self, predictions: pd.DataFrame) -> dict[str, float]:
        """The mean IoU of the fold's annotated slices with the likeliest box found on each."""
        found = mean_iou(predictions, self.true_boxes())
        return {} if found.mean is None else {"mean_iou": found.mean, "slices_found": found.matched / found.annotated}

    def true_boxes(self) -> pd.DataFrame:
        """The boxes that people drew in the fold's studies, as those found."""
        rows = [self.boxes[study.uid] for study in self.predicted if study.uid in self.boxes]
        if not rows:
            return pd.DataFrame(columns=list(FOUND_BOXES))
        return pd.concat(rows).rename(columns={"slice_number": "file_number"}).assign(score=1.0, level="")

    def facts(self) -> dict[str, Any]:
        return {}

    @staticmethod
    def infer(
        models: Sequence[nn.Module],
        config: Config,
        images: StudyImages,
        facts: Sequence[dict[str, Any]],  # noqa: ARG004
        device: torch.device,
    ) -> np.ndarray:
        """The boxes of each slice in pixels of the model's image, float32 (z, KEPT, 5), several models' fused.

        As `models.detector.Detector` gives them of one image; slices on which stage 1 sees no level are not searched
        and have scores of 0.
        """
        presence = images.presence_for(config)
        searched = np.flatnonzero(visible_slices(presence))
        found = np.zeros((len(presence), KEPT, 5), np.float32)
        if len(searched):
            outputs = model_outputs(models, images.batches(searched, config), device, config.train.precision)
            found[searched] = fuse(outputs.reshape(len(models), len(searched), KEPT, 5))
        return found

    @staticmethod
    def join(tables: list[pd.DataFrame]) -> pd.DataFrame:
        return pd.concat(tables, ignore_index=True)

    def _placed(self, study: CachedStudy) -> StudyBoxes:
        rows = self.boxes.get(study.uid)
        if rows is None:
            return StudyBoxes(np.full((len(study.geometry.z_mm), 4), np.nan))
        return place_boxes(rows, study.geometry, study.slice_shape)

    def _slices_to_search(self, uid: str, fractured: np.ndarray | None) -> np.ndarray:
        presence = self.presence[uid]
        return np.flatnonzero(visible_slices(presence if fractured is None else presence * fractured))

    def _slices_to_learn(self, study: CachedStudy, boxes: StudyBoxes) -> np.ndarray:
        fractured = self.labels.loc[study.uid, list(LEVELS)].to_numpy(float)
        return slices_to_learn(boxes.present, self.presence[study.uid], fractured)


def decided_levels(config: Config) -> dict[str, np.ndarray]:
    """bool (7,) by study: the levels that the ensemble, of folds that did not see the study, takes for fractured."""
    folder, command = Path(config.paths.oof) / ENSEMBLE, "python src/ensemble.py"
    table = read_study_table(need(folder / "oof.csv", command)).set_index(STUDY)
    cuts = read_json(need(folder / "blend.json", command))["thresholds"]
    decided = table[list(LEVELS)].to_numpy() >= np.array([cuts[level] for level in LEVELS])
    return dict(zip(table.index, decided, strict=True))


def found_boxes(
    found: np.ndarray, presence: np.ndarray, uid: str, geometry: Geometry, crop: Crop, config: Config
) -> pd.DataFrame:
    """What a detector found on the slices of a study, (z, KEPT, 5), as rows of boxes.csv in pixels of the files.

    `presence` (z, 7), stage 1's, names their levels.
    """
    index, kept = np.nonzero(found[..., 4] >= config.localise.least_score)
    corners = corners_in_volume(found[index, kept, :4], crop, config.data)
    (top, left), (bottom, right) = (
        geometry.to_file_pixels(index, corners[:, y], corners[:, x]) for y, x in ((1, 0), (3, 2))
    )
    table = pd.DataFrame(
        {
            STUDY: uid,
            "file_number": geometry.file_numbers[index],
            "x": left.round(2),
            "y": top.round(2),
            "width": (right - left).round(2),
            "height": (bottom - top).round(2),
            "score": found[index, kept, 4].astype(float).round(6),
            "level": "",
        }
    )
    named = levels_by_presence(table, geometry, presence)
    table["level"] = [LEVELS[level] if level >= 0 else "" for level in named]
    # Of a box clipped to the image there may be nothing left, and where there are fewer than KEPT there never was.
    there = (table[["width", "height"]] > 0).all(axis=1)
    return table.loc[there, list(FOUND_BOXES)].reset_index(drop=True)
