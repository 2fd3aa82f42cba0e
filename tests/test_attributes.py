"""Attributes follow from geometry, reach the model in training, prediction and inference alike, and matter."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from tiny_pipeline import ALONE, Prepared

from cspine.anatomy import LEVELS
from cspine.config import Config, Model
from cspine.data.attributes import slice_attributes
from cspine.data.decode import DecodeTask, decode_study
from cspine.data.slices import channels
from cspine.errors import UserError
from cspine.inference import LoadedMember, study_images
from cspine.models.registry import create_model
from cspine.paths import read_json
from cspine.tables import STUDY, read_slices
from cspine.tasks.base import find_task
from cspine.training import train_fold


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(tmp_path_factory.mktemp("attributes"))


@given(st.lists(st.floats(0.3, 5), min_size=2, max_size=40), st.floats(-2000, 2000))
def test_attributes_do_not_depend_on_where_the_scanner_counts_from(steps: list[float], origin: float) -> None:
    z_mm = 50 - np.cumsum(steps)
    here, there = slice_attributes(z_mm, 1.0), slice_attributes(z_mm + origin, 1.0)
    assert np.allclose(here, there, atol=1e-5)
    assert (here[0, 0], here[-1, 0]) == (0, 1)
    assert (np.diff(here[:, 0]) > 0).all()
    assert here[0, 1] == pytest.approx((z_mm[0] - z_mm[-1]) / 200, abs=1e-5)
    assert here[0, 1] == pytest.approx(-here[-1, 1], abs=1e-5)


def test_the_ratio_goes_by_millimetres_and_a_missing_thickness_is_the_spacing() -> None:
    found = slice_attributes(np.array([30.0, 28, 26, 10]), None)
    assert np.allclose(found[:, 0], [0, 0.1, 0.2, 1])
    assert np.allclose(found[:, 2], 2)
    assert np.allclose(slice_attributes(np.array([30.0, 28]), 0.625)[:, 2], 0.625)


def test_the_model_uses_image_and_attributes_and_asks_for_them() -> None:
    torch.manual_seed(0)
    model = create_model(Model(name="attribute_classifier", backbone="lcnet_050"), 1, 7).eval()
    images = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8)
    attributes = torch.rand(2, 3)
    logits = model(images, attributes)
    assert logits.shape == (2, 7)
    assert not torch.equal(logits, model(images, attributes + 1))
    assert not torch.equal(logits, model(images.flip(0), attributes))
    with pytest.raises(UserError, match="vertebra/attributes"):
        model(images)


def test_attributes_reach_the_model_alike_in_prediction_and_inference(prepared: Prepared) -> None:
    config = prepared.config("a", "vertebra/attributes")
    config = replace(config, model=replace(config.model, name="attribute_classifier"))
    for fold in (0, 1):
        train_fold(config, fold, ALONE)
    table = read_slices(prepared.oof / "a" / "slices.parquet")
    uid = table.loc[table["source"] == "oof", STUDY].iloc[0]
    rows = table[table[STUDY] == uid]
    # Without the header's thickness the distance between slices, 3 mm and not 4, would give other logits.
    images = study_images(
        decode_study(DecodeTask(uid, prepared.data.images(uid), (config.preprocess,))), config.preprocess
    )
    model = create_model(config.model, channels(config), len(LEVELS)).eval()
    fold = int(rows["fold"].iloc[0])
    model.load_state_dict(load_file(prepared.oof / "a" / f"fold{fold}" / "weights.safetensors"))
    facts = read_json(prepared.oof / "a" / f"fold{fold}" / "done.json")["facts"]
    member = LoadedMember(config, (model,), (facts,))
    found = member.infer(images, torch.device("cpu"))
    assert np.allclose(found, rows[list(LEVELS)].to_numpy(), atol=1e-5)
    other = member.infer(replace(images, thickness_mm=None), torch.device("cpu"))
    assert not np.allclose(found, other, atol=1e-5)


def test_each_slice_travels_with_its_own_attributes(prepared: Prepared) -> None:
    config = prepared.config("a", "vertebra/attributes")
    task = find_task(config.task)(replace(config, model=Model(name="attribute_classifier")), 0)
    for samples in (task.training_samples(), task.prediction_samples()):
        for position in (0, 3, len(samples) - 1):
            sample = samples[position, -1]
            assert float(sample["attributes"][0]) == pytest.approx((position % 8) / 7)
            assert float(sample["attributes"][2]) == 4


def test_the_task_names_the_model_it_needs() -> None:
    config = Config(name="a", task="vertebra/attributes")
    with pytest.raises(UserError, match=r"model\.name=attribute_classifier"):
        find_task(config.task)(config, 0)
