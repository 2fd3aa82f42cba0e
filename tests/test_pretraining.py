"""Levels drawn alone: their crops are those that a head cuts from a study, their truth is where the fracture is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_pipeline import ALONE

from cspine.config import Augment, Config, Crop, Data, Model, Paths, Preprocess, Sequence, Train
from cspine.errors import UserError
from cspine.models.registry import create_model
from cspine.paths import read_json
from cspine.phantom.level_files import draw_levels, level_folder
from cspine.phantom.single_levels import SIDE_MM, Sampling, draw_level_alone
from cspine.pretraining import Order, level_samples, pretrain

SETTINGS = Preprocess(field_mm=180.0, size_px=128)
COARSE = Sampling(matrix=128, spacing_mm=2.0)
CONFIG = Config(
    name="p",
    task="fracture/sequence",
    stage1="maps",
    preprocess=SETTINGS,
    data=Data(image_size_px=48, neighbours=0, workers=0),
    crop=Crop(slices=4, boxes=0.5),
    augment=Augment(horizontal_flip=0.5),
    model=Model(
        name="sequence_classifier", backbone="test_resnet", cells=True, sequence=Sequence(hidden=8, clearest=2)
    ),
    train=Train(epochs=1, batch_size=8),
)


def test_a_level_depends_on_the_seed_and_its_number_alone(tmp_path: Path) -> None:
    one, again = (draw_level_alone(3, SETTINGS, COARSE, 4) for _ in range(2))
    assert np.array_equal(one.volume, again.volume)
    listed = draw_levels(tmp_path, 5, 3, SETTINGS, COARSE, processes=1)
    assert np.array_equal(listed[4].volume, one.volume)
    assert [level.fractured for level in listed] == [True, False, True, False, True]
    # As a file it is the same level, to the last bit.
    stored = listed[4]
    assert (stored.uid, stored.place.centre_mm, stored.place.top_mm) == (one.uid, one.place.centre_mm, one.place.top_mm)
    assert np.array_equal(stored.place.probabilities, one.place.probabilities)
    assert np.array_equal(stored.truth.boxes_mm, one.truth.boxes_mm, equal_nan=True)
    assert np.array_equal(stored.geometry.z_mm, one.geometry.z_mm)
    assert not np.array_equal(draw_level_alone(4, SETTINGS, COARSE, 4).volume, one.volume)


def test_levels_that_are_there_are_not_drawn_again(tmp_path: Path) -> None:
    first = draw_levels(tmp_path, 3, 3, SETTINGS, COARSE, processes=1)
    written = first[0].file.stat().st_mtime_ns
    first[1].file.unlink()
    second = draw_levels(tmp_path, 3, 3, SETTINGS, COARSE, processes=1)
    assert second[0].file.stat().st_mtime_ns == written
    assert second[1].fractured is False
    folders = {
        level_folder(tmp_path, 3, SETTINGS, COARSE),
        level_folder(tmp_path, 4, SETTINGS, COARSE),
        level_folder(tmp_path, 3, replace(SETTINGS, windows=("bone",)), COARSE),
        level_folder(tmp_path, 3, SETTINGS, Sampling(128, 1.0)),
    }
    assert len(folders) == 4
    first[2].file.write_bytes(b"PK")
    with pytest.raises(UserError, match=r"000002\.npz: damaged"):
        draw_levels(tmp_path, 3, 3, SETTINGS, COARSE, processes=1)


@pytest.mark.parametrize("index", range(6))
def test_the_pixels_are_those_of_the_cache_and_the_fracture_lies_within_the_level(index: int) -> None:
    level = draw_level_alone(1, SETTINGS, COARSE, index)
    side = level.volume.shape[-1]
    assert SIDE_MM / side == pytest.approx(180 / 128, rel=0.01)
    assert level.volume.shape == (len(level.geometry.z_mm), 1, side, side)
    seen = level.truth.seen > 0
    assert seen.any() == level.fractured
    assert np.array_equal(np.isnan(level.truth.boxes_mm[:, 0]), ~seen)
    z_mm = level.geometry.z_mm[seen]
    # Displaced pieces and the voxels of 4 mm of the map reach a little beyond it.
    assert (z_mm <= level.place.top_mm + 6).all()
    assert (z_mm >= level.place.bottom_mm - 6).all()
    assert 8 < level.place.top_mm - level.place.bottom_mm < 60


def test_the_crop_shows_bone_under_its_mask(tmp_path: Path) -> None:
    levels = draw_levels(tmp_path, 4, 2, SETTINGS, COARSE, processes=1)
    samples = level_samples(levels, CONFIG, augmented=False)
    for number in range(4):
        image = samples[number, -1]["image"].numpy()
        assert image.shape == (4, 2, 48, 48)
        grey, mask = image[:, 0].astype(float), image[:, 1] > 200
        assert mask.sum() > 50
        assert grey[mask].mean() > grey[image[:, 1] < 20].mean() + 30
        middle = np.argwhere(mask.any(0)).mean(axis=0)
        assert np.abs(middle - 23.5).max() < 12


def test_it_trains_a_model_that_a_head_can_start_from(tmp_path: Path) -> None:
    config = replace(CONFIG, paths=Paths(input=str(tmp_path / "input"), oof=str(tmp_path)))
    file = pretrain(config, Order(24, 0, COARSE), ALONE, processes=1)
    account = read_json(file.parent / "done.json")
    assert (account["held_out"], account["order"]["levels"]) == (4, 24)
    assert 0 <= account["auc"] <= 1
    assert not (file.parent / "last.ckpt").exists()
    (file.parent / "last.ckpt").touch()
    with pytest.raises(UserError, match="interrupted training; add --resume"):
        pretrain(config, Order(24, 0, COARSE), ALONE, processes=1)
    started = create_model(replace(config.model, start=str(file)), 1, 1)
    for key, value in load_file(file).items():
        assert torch.equal(started.state_dict()[key], value), key
    # What judges the patient as well starts anew; heads of whole slices take the encoder without the mask's channel.
    study = create_model(replace(config.model, name="study_classifier", start=str(file)), 1, 8)
    assert torch.equal(study.state_dict()["head.weight"], load_file(file)["head.weight"])
    encoder = Model(backbone="test_resnet", cells=True, pretrained=str(file.with_name("encoder.safetensors")))
    taken = create_model(encoder, 1, 8).state_dict()
    stem = next(key for key in taken if key.endswith("conv1.0.weight") or key.endswith("conv1.weight"))
    assert torch.equal(taken[stem], load_file(file)[stem][:, :1])
    assert torch.equal(taken["backbone.logit.weight"], load_file(file)["backbone.logit.weight"])
    # Weights of a run are loaded afterwards, wherever the file went.
    create_model(replace(config.model, start="gone.safetensors"), 1, 1, pretrained=False)
    with pytest.raises(UserError, match=r"model\.start=gone\.safetensors: no such file"):
        create_model(replace(config.model, start="gone.safetensors"), 1, 1)
    with pytest.raises(UserError, match=r"does not fit this model"):
        create_model(replace(config.model, backbone="test_efficientnet", start=str(file)), 1, 1)


def test_what_judges_no_single_levels_is_refused(tmp_path: Path) -> None:
    config = replace(CONFIG, paths=Paths(oof=str(tmp_path)))
    for task in ("fracture/study", "fracture/slice", "vertebra/image"):
        with pytest.raises(UserError, match="does not judge single levels"):
            pretrain(replace(config, task=task), Order(24, 0, COARSE), ALONE, processes=1)
    with pytest.raises(UserError, match="at least 20"):
        pretrain(config, Order(4, 0, COARSE), ALONE, processes=1)
