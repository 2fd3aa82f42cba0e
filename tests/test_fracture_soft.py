"""fracture/soft on tiny studies whose slice table is made by hand: its labels, what it learns, inference."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import body_hu
from safetensors.torch import load_file
from test_fracture_sequence import Levels
from tiny_pipeline import ALONE
from torch.nn.functional import binary_cross_entropy_with_logits

from cspine.anatomy import LEVELS, TARGETS
from cspine.config import Config, Model, Train
from cspine.data.cache import open_study
from cspine.data.slices import channels
from cspine.models.registry import create_model
from cspine.paths import folds_file, read_json
from cspine.slice_table import fit_masked, slice_table
from cspine.tables import STUDY, read_study_table, write_table
from cspine.tasks.base import StudyImages, find_task, fold_folder
from cspine.training import train_fold

CPU = torch.device("cpu")
# What stage 1 says of the slices: C1 fades out where C2 begins.
C1 = (1, 1, 1, 0.6, 0.2, 0, 0, 0)
C2 = (0, 0, 0, 0.3, 0.9, 1, 1, 1)


class SeenLevels(Levels):
    """As `Levels`, with a slice table too; every slice shows which level it is, and whether that is fractured."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        # One study of each pattern of fractures in either fold.
        folds = pd.DataFrame({STUDY: self.data.uids, "fold": [0, 0, 0, 0, 1, 1, 1, 1]})
        write_table(folds, folds_file(self.data.config))
        studies = [open_study(self.data.config, uid) for uid in self.data.uids]
        table = slice_table(studies, np.tile(self.presence, (8, 1)), 0, fit_masked(studies), 0.0)
        write_table(table, folder / "oof" / "maps" / "slices.parquet")

    def volume(self, labels: pd.Series) -> np.ndarray:
        volume = body_hu()
        for level, slices, columns in (("C1", slice(0, 4), slice(10, 22)), ("C2", slice(4, 8), slice(13, 19))):
            volume[slices, 12:22, columns] = 700 + 10 * int(labels.name)  # no study is like another
            if labels[level]:
                volume[slices, 15:18, columns] = -600
        return volume

    @property
    def presence(self) -> np.ndarray:
        """(8, 7), of every study."""
        seen = np.zeros((8, len(LEVELS)))
        seen[:, 0], seen[:, 1] = C1, C2
        return seen

    def soft(self, **changes: Any) -> Config:
        return replace(
            self.config,
            name="soft",
            task="fracture/soft",
            model=Model(backbone="test_resnet", dropout=0.0),
            train=Train(epochs=20, batch_size=8, max_rate=1e-2),
            **changes,
        )

    def images(self, uid: str) -> StudyImages:
        study = open_study(self.config, uid)
        images = StudyImages(np.array(study.volume), study.geometry.z_mm, study.geometry.spacing_mm)
        return images.with_stage1(self.presence)

    def infer(self, config: Config, fold: int, images: StudyImages) -> np.ndarray:
        """What the model of one fold says of a study, by its folder alone."""
        folder, task = fold_folder(config, fold), find_task(config.task)
        model = create_model(config.model, channels(config), task.outputs, pretrained=False).eval()
        model.load_state_dict(load_file(folder / "weights.safetensors"))
        return task.infer([model], config, images, [read_json(folder / "done.json")["facts"]], CPU)

    def require_learned(self, run: str, *targets: str) -> None:
        """The table of a run holds every study, and those that are positive above all others."""
        table = read_study_table(self.folder / "oof" / run / "oof.csv").set_index(STUDY)
        assert sorted(table.index) == sorted(self.data.uids)
        labels = self.data.labels.set_index(STUDY).loc[table.index]
        for target in targets:
            positive = labels[target] == 1
            assert table.loc[positive, target].min() > table.loc[~positive, target].max(), target
        assert (table["C3"] == 0).all()  # no study shows it: its prevalence

    def require_same_inference(self, config: Config, atol: float) -> None:
        """Inference by a fold's weights alone says of its studies what its predictions say."""
        for fold in (0, 1):
            rows = read_study_table(fold_folder(config, fold) / "predictions.csv").set_index(STUDY)
            for uid in rows.index:
                found = self.infer(config, fold, self.images(uid))
                assert np.allclose(found, rows.loc[uid, list(TARGETS)].to_numpy(float), atol=atol)


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> SeenLevels:
    made = SeenLevels(tmp_path_factory.mktemp("soft"))
    for fold in (0, 1):
        train_fold(made.soft(), fold, ALONE)
    return made


def test_it_learns_which_level_is_fractured(levels: SeenLevels) -> None:
    levels.require_learned("soft", "C1", "C2")


def test_inference_equals_the_predictions(levels: SeenLevels) -> None:
    levels.require_same_inference(levels.soft(), atol=1e-5)


def test_a_label_is_presence_times_the_label_of_the_study(levels: SeenLevels) -> None:
    task = find_task("fracture/soft")(levels.soft(), None)
    samples = task.training_samples()
    assert len(samples) == 64
    for number in range(len(samples)):
        study, slice_number = samples.studies[samples.study[number]], samples.index[number]
        expected = levels.presence[slice_number] * task.labels.loc[study.uid, list(LEVELS)].to_numpy(float)
        assert samples[number, -1]["fractured"].numpy() == pytest.approx(expected)


def test_the_loss_is_the_cross_entropy_of_all_levels_with_soft_labels(levels: SeenLevels) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(4, 7, generator=generator), torch.rand(4, 7, generator=generator)
    for weight in (1.0, 3.0):
        config = levels.soft()
        task = find_task("fracture/soft")(replace(config, train=replace(config.train, positive_weight=weight)), 0)
        parts = binary_cross_entropy_with_logits(
            logits, labels, pos_weight=torch.tensor(weight), reduction="none"
        ) / float((1 + (weight - 1) * labels).sum())
        assert float(task.loss(logits, {"fractured": labels})) == pytest.approx(float(parts.sum()), rel=1e-5)
