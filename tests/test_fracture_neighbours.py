"""fracture/neighbours on tiny studies whose level maps are made from their masks: trained, predicted, refused."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from test_fracture_soft import SeenLevels
from tiny_pipeline import ALONE

from cspine.anatomy import TARGETS
from cspine.config import Config, Model, Neighbours, Train
from cspine.engine.distributed import World
from cspine.engine.loader import EpochSampler
from cspine.errors import UserError
from cspine.tables import STUDY, read_study_table
from cspine.tasks.base import fold_folder
from cspine.tasks.fracture_neighbours import Task
from cspine.training import train_fold


def neighbours(levels: SeenLevels) -> Config:
    return replace(
        levels.config,
        name="near",
        task="fracture/neighbours",
        crop=replace(levels.config.crop, slices=16, boxes=0.0, negatives=1.0),
        model=Model(
            name="neighbour_classifier", width=8, dropout=0.0, neighbours=Neighbours(width=8, voters=3, fade=0.2)
        ),
        train=Train(epochs=30, batch_size=8, max_rate=1e-2),
    )


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> SeenLevels:
    made = SeenLevels(tmp_path_factory.mktemp("near"))
    for fold in (0, 1):
        train_fold(neighbours(made), fold, ALONE)
    return made


def test_it_learns_which_level_is_fractured(levels: SeenLevels) -> None:
    levels.require_learned("near", "C1", "C2")


def test_inference_needs_its_weights_alone(levels: SeenLevels) -> None:
    config = neighbours(levels)
    for fold in (0, 1):
        rows = read_study_table(fold_folder(config, fold) / "predictions.csv").set_index(STUDY)
        for uid in rows.index:
            images = levels.images(uid).with_stage1(None, lambda uid=uid: levels.map_of(uid))
            found = levels.infer(config, fold, images)
            assert np.allclose(found, rows.loc[uid, list(TARGETS)].to_numpy(float), atol=1e-4)


def test_the_bank_holds_every_level_trained_on_as_it_is(levels: SeenLevels) -> None:
    config = neighbours(levels)
    weights = load_file(fold_folder(config, 0) / "weights.safetensors")
    task = Task(config, 0)
    samples = task._samples(task.training, augmented=False)
    assert weights["bank"].shape == (len(samples), 8) == (8, 8)
    assert weights["bank_fractured"].tolist() == samples.fractured.astype(float).tolist()
    model = task.model()
    model.load_state_dict(weights)
    with torch.inference_mode():
        made = model.eval().network(torch.stack([samples[number, -1]["image"] for number in range(8)]))
    assert torch.allclose(torch.nn.functional.normalize(made, dim=1), weights["bank"], atol=1e-5)


def test_every_batch_holds_both_classes(levels: SeenLevels) -> None:
    config = neighbours(levels)
    labels = levels.data.labels
    try:
        for positives in (1, 2, 6):
            rare = labels.assign(C1=0, C2=0)
            rare.loc[: positives - 1, "C1"] = 1
            levels.data.labels = rare.assign(patient_overall=rare["C1"])
            levels.data.write_tables()
            samples = Task(replace(config, crop=replace(config.crop, negatives=1.5)), None).training_samples()
            assert (len(samples), int(samples.fractured.sum())) == (16, positives)
            for seed in range(10):
                order = samples.draw(np.random.default_rng(seed))
                assert len(order) == len(set(order)) == positives + round(1.5 * positives)
                found = pd.Series(samples.fractured[order]).rolling(5).sum().dropna()
                assert found.between(1, 4).all()
    finally:
        levels.data.labels = labels
        levels.data.write_tables()


def test_so_does_every_batch_of_two_processes(levels: SeenLevels) -> None:
    samples = Task(neighbours(levels), None).training_samples()
    shares = []
    for epoch in range(20):
        for rank in (0, 1):
            sampler = EpochSampler(samples, 0, epoch, World(rank, 2, torch.device("cpu")), 8)
            shares.append(samples.fractured[[position for position, _ in sampler]].mean())
    assert 0.1 < min(shares) < max(shares) < 0.9


def test_epochs_differ(levels: SeenLevels) -> None:
    samples = Task(neighbours(levels), None).training_samples()
    orders = {tuple(samples.draw(np.random.default_rng(seed))) for seed in range(10)}
    assert len(orders) == 10


@pytest.mark.parametrize(
    ("crop", "train", "told"),
    [
        ({"negatives": None}, {}, r"set crop\.negatives to a number"),
        ({"negatives": 9.0}, {"batch_size": 16}, "every batch needs 2 levels of either class"),
        ({"negatives": 0.1}, {"batch_size": 16}, "every batch needs 2 levels"),
        ({"negatives": 1.0}, {"batch_size": 3}, "every batch needs 2 levels"),
        ({"boxes": 0.5}, {}, r"set crop\.boxes=0"),
    ],
)
def test_what_it_cannot_do_is_refused(levels: SeenLevels, crop: dict, train: dict, told: str) -> None:
    config = neighbours(levels)
    changed = replace(config, crop=replace(config.crop, **crop), train=replace(config.train, **train))
    with pytest.raises(UserError, match=told):
        Task(changed, 0)
