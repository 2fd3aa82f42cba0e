"""The report's heads: each level by its presence in the loss, the same answer in prediction and inference."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_pipeline import ALONE, Prepared
from torch.nn.functional import binary_cross_entropy_with_logits

from cspine.anatomy import TARGETS
from cspine.config import Aggregate, Config, Train
from cspine.data.decode import DecodeTask, decode_study
from cspine.errors import UserError
from cspine.inference import load_run, study_images
from cspine.tables import STUDY, read_csv, read_slices
from cspine.tasks.base import find_task
from cspine.tasks.fracture_multimodal import presence_weighted_loss, presence_weighted_targets
from cspine.training import train_fold

MODELS = {"fracture/multimodal": "presence_classifier", "fracture/multitask": "slice_classifier"}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    prepared = Prepared(tmp_path_factory.mktemp("heads"))
    for fold in (0, 1):
        train_fold(prepared.vertebra, fold, ALONE)
    return prepared


def head(prepared: Prepared, task: str, clearest_mm: float | None = None) -> Config:
    config = prepared.config(task.replace("/", "-"), task)
    model = replace(config.model, name=MODELS[task])
    return replace(config, stage1="v", model=model, aggregate=Aggregate(clearest_mm=clearest_mm))


@pytest.mark.parametrize("task", MODELS)
def test_inference_equals_the_out_of_fold_row(prepared: Prepared, task: str) -> None:
    config = head(prepared, task, clearest_mm=6.0)
    train_fold(config, 0, ALONE)
    rows = read_csv(prepared.oof / config.name / "fold0" / "predictions.csv", (STUDY, *TARGETS))
    uid = rows[STUDY].iloc[0]
    slices = read_slices(prepared.oof / "v" / "slices.parquet")
    presence = slices[slices[STUDY] == uid].sort_values("z_mm", ascending=False)[list(TARGETS[1:])].to_numpy()
    decoded = decode_study(DecodeTask(uid, prepared.data.images(uid), (config.preprocess,)))
    images = study_images(decoded, config.preprocess).with_stage1(presence)
    member = load_run(prepared.oof, config.name, torch.device("cpu"))
    found = member.infer(images, torch.device("cpu"))
    assert np.allclose(found, rows.loc[0, list(TARGETS)].to_numpy(float), atol=1e-5)
    assert len(np.unique(found[1:].round(6))) > 1


def test_other_levels_on_a_slice_change_what_the_multimodal_head_says(prepared: Prepared) -> None:
    task = find_task("fracture/multimodal")(head(prepared, "fracture/multimodal"), 0)
    model = task.model().eval()
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    levels = torch.eye(7)[[0, 6]]
    assert not torch.allclose(model(images, levels), model(images, levels.flip(0)))
    sample = task.training_samples()[0, -1]
    assert torch.allclose(sample["attributes"], sample["fractured"] + sample["sound"])


def test_the_loss_is_cross_entropy_weighted_by_presence_and_fracture() -> None:
    rng = np.random.default_rng(0)
    presence, fractured = rng.uniform(size=(5, 7)).astype(np.float32), rng.integers(0, 2, (5, 7)).astype(np.float32)
    logits = torch.from_numpy(rng.normal(size=(5, 7)).astype(np.float32))
    batch = {name: torch.from_numpy(values) for name, values in presence_weighted_targets(presence, fractured).items()}
    weight = torch.from_numpy(presence * (1 + 2 * fractured))
    truth = torch.from_numpy(fractured)
    told = (weight * binary_cross_entropy_with_logits(logits, truth, reduction="none")).sum() / weight.sum()
    assert float(presence_weighted_loss(logits, batch, 3.0)) == pytest.approx(float(told), rel=1e-5)


def test_an_absent_level_costs_nothing_in_3b_and_its_vertebra_does_in_3c(prepared: Prepared) -> None:
    presence, fractured = np.zeros((1, 7), np.float32), np.ones((1, 7), np.float32)
    presence[0, 2] = 1
    batch = {name: torch.from_numpy(values) for name, values in presence_weighted_targets(presence, fractured).items()}
    config = replace(head(prepared, "fracture/multitask"), train=Train(positive_weight=1.0))
    task = find_task(config.task)(config, 0)
    logits, wrong, misplaced = (torch.zeros(1, 14) for _ in range(3))
    wrong[0, 5] = 9.0
    misplaced[0, 7 + 5] = 9.0
    assert float(task.loss(wrong, batch)) == pytest.approx(float(task.loss(logits, batch)))
    assert float(task.loss(misplaced, batch)) > float(task.loss(logits, batch)) + 1


def test_the_multimodal_task_names_the_model_it_needs() -> None:
    config = Config(name="a", task="fracture/multimodal", stage1="v")
    with pytest.raises(UserError, match=r"model\.name=presence_classifier"):
        find_task(config.task)(config, 0)
