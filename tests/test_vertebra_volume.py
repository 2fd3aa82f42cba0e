"""vertebra/volume learns a tiny dataset, and its slice table is the one that vertebra/image makes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_mask
from safetensors.torch import load_file
from test_volumes import STILL
from tiny_pipeline import ALONE, Prepared

from cspine.anatomy import LEVELS
from cspine.config import Augment, Config, Volume, VolumeAugment, load
from cspine.data.cache import open_study
from cspine.data.prepare import prepare_and_report
from cspine.errors import UserError
from cspine.models.registry import create_model
from cspine.paths import read_json
from cspine.tables import STUDY, read_slices
from cspine.tasks.base import StudyImages, find_task
from cspine.tasks.vertebra_volume import ENTROPY_WEIGHT, Task, segment, segmentation_loss
from cspine.training import train_fold


def volume_config(prepared: Prepared, augment: VolumeAugment = STILL, **train: object) -> Config:
    made = prepared.config("vol", "vertebra/volume")
    return replace(
        made,
        data=replace(made.data, neighbours=0),
        model=replace(made.model, name="plain_unet", width=8, dropout=0.0),
        volume=Volume(voxel_mm=3.0, window_px=(16, 32, 16), windows_per_study=8),
        volume_augment=augment,
        train=replace(made.train, **{"epochs": 10, "batch_size": 2, "max_rate": 1e-2, **train}),
    )


def halves() -> np.ndarray:
    """The body's cranial half is C1, the caudal half C2: what is alike is told apart by its surroundings."""
    labels = np.zeros((8, 32, 32), np.uint8)
    labels[:4, 8:26, 6:26], labels[4:, 8:26, 6:26] = 1, 2
    return labels


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Prepared, Config]:
    prepared = Prepared(tmp_path_factory.mktemp("volume"))
    for uid in prepared.data.uids[1:5]:
        write_mask(prepared.data.mask(uid), halves())
    prepare_and_report(prepared.data.config, ("train",))
    config = volume_config(prepared)
    for fold in (0, 1):
        train_fold(config, fold, ALONE)
    return prepared, config


def model_of(config: Config, fold: int) -> torch.nn.Module:
    model = create_model(config.model, 1, 7)
    model.load_state_dict(load_file(Path(config.paths.oof) / "vol" / f"fold{fold}" / "weights.safetensors"))
    return model.eval()


def test_it_learns_where_the_levels_are(trained: tuple[Prepared, Config]) -> None:
    _, config = trained
    table = read_slices(Path(config.paths.oof) / "vol" / "slices.parquet")
    known = table[table["source"] == "oof"]
    truth = known[[f"{level}_true" for level in LEVELS]].to_numpy() > 0.5
    right = (known[list(LEVELS)].to_numpy() > 0.5) == truth
    assert truth.any()
    assert right.mean() > 0.97
    assert right[truth].mean() > 0.85


def test_the_table_has_every_slice_of_every_study_once(trained: tuple[Prepared, Config]) -> None:
    prepared, config = trained
    table = read_slices(Path(config.paths.oof) / "vol" / "slices.parquet")
    assert sorted(table[STUDY].unique()) == prepared.data.uids
    assert not table.duplicated([STUDY, "file_number"]).any()
    assert len(table) == 8 * len(prepared.data.uids)
    assert set(table.loc[table["source"] == "mean", STUDY]) == {prepared.data.uids[0], prepared.data.uids[5]}
    assert table[list(LEVELS)].to_numpy().min() >= 0
    assert table[list(LEVELS)].to_numpy().max() <= 1


def test_inference_gives_what_the_table_holds(trained: tuple[Prepared, Config]) -> None:
    prepared, config = trained
    study = open_study(config, prepared.data.uids[0])  # no mask: the mean of both folds
    images = StudyImages(np.array(study.volume), study.geometry.z_mm, study.geometry.spacing_mm)
    models, task = [model_of(config, fold) for fold in (0, 1)], find_task("vertebra/volume")
    facts = [read_json(Path(config.paths.oof) / "vol" / f"fold{fold}" / "done.json")["facts"] for fold in (0, 1)]
    found = task.infer(models, config, images, facts, torch.device("cpu"))
    table = read_slices(Path(config.paths.oof) / "vol" / "slices.parquet").set_index(STUDY).loc[study.uid]
    rows = table.sort_values("z_mm", ascending=False)[list(LEVELS)].to_numpy()
    assert found.shape == rows.shape
    assert np.allclose(found, rows, atol=1e-5)


def test_the_voxels_lie_where_the_mask_does(trained: tuple[Prepared, Config]) -> None:
    prepared, config = trained
    study = open_study(config, prepared.data.uids[1])
    images = StudyImages(np.array(study.volume), study.geometry.z_mm, study.geometry.spacing_mm)
    probabilities = segment([model_of(config, 0)], config, images, torch.device("cpu"))
    task = Task(config, None)
    assert probabilities.shape == (7, *task.training_samples().levels[0].shape)
    for level, truth in enumerate(task.training_samples().levels[0] == number for number in (1, 2)):
        overlap = (probabilities[level][truth] > 0.5).mean()
        assert overlap > 0.5, f"C{level + 1}"
        assert (probabilities[level] > 0.5).sum() < 3 * truth.sum()


def test_mixup_is_refused(trained: tuple[Prepared, Config]) -> None:
    _, config = trained
    with pytest.raises(UserError, match=r"set augment\.mixup=0"):
        find_task(config.task)(replace(config, augment=Augment(mixup=0.2)), 0)


def test_a_second_channel_of_neighbours_is_refused(trained: tuple[Prepared, Config]) -> None:
    _, config = trained
    with pytest.raises(UserError, match=r"set data\.neighbours=0"):
        Task(replace(config, data=replace(config.data, neighbours=1)), 0)


@pytest.mark.parametrize("window", ["[16,16,16]", "[64,64]", "[64,64,50]", "[0,64,64]"])
def test_a_window_that_no_model_fits_is_refused(trained: tuple[Prepared, Config], window: str) -> None:
    prepared, _ = trained
    with pytest.raises(UserError, match=r"volume\.window_px: must be three multiples of 16"):
        load(Config, prepared.folder / "vol.yaml", [f"volume.window_px={window}"])


def labels() -> torch.Tensor:
    made = torch.zeros(2, 16, 16, 16, dtype=torch.uint8)
    made[0, 2:7, 4:12, 4:12], made[0, 9:14, 4:12, 4:12] = 3, 4
    made[1, 2:7, 4:12, 4:12] = 5
    return made


def logits_of(made: torch.Tensor, sure: float = 20.0) -> torch.Tensor:
    return torch.stack([torch.where(made == level, sure, -sure) for level in range(1, 8)], dim=1)


def test_a_perfect_segmentation_costs_nothing_and_swapped_levels_do() -> None:
    truth = labels()
    assert float(segmentation_loss(logits_of(truth), truth)) == pytest.approx(0, abs=1e-3)
    truth = truth[:1]
    swapped = torch.where(truth == 3, 4, torch.where(truth == 4, 3, truth))
    nothing = segmentation_loss(logits_of(torch.zeros_like(truth)), truth)
    wrong = segmentation_loss(logits_of(swapped), truth)
    assert float(wrong) > float(nothing) > 0.9
    shifted = segmentation_loss(logits_of(truth.roll(1, dims=1)), truth)
    assert 0.05 < float(shifted) < float(wrong)


def test_absent_levels_count_by_cross_entropy_alone() -> None:
    empty = torch.zeros(1, 16, 16, 16, dtype=torch.uint8)
    outputs = torch.randn(1, 7, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(outputs, torch.zeros_like(outputs))
    assert float(segmentation_loss(outputs, empty)) == pytest.approx(ENTROPY_WEIGHT * float(entropy))


def test_an_interrupted_training_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = Prepared(tmp_path)
    config = volume_config(prepared, VolumeAugment(), epochs=1, checkpoint_every=1)
    train_fold(replace(config, name="whole"), 0, ALONE)
    calls = []

    def dying(outputs: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return segmentation_loss(outputs, levels)

    monkeypatch.setattr("cspine.tasks.vertebra_volume.segmentation_loss", dying)
    with pytest.raises(KeyboardInterrupt):
        train_fold(config, 0, ALONE)
    monkeypatch.undo()
    train_fold(config, 0, ALONE, resume=True)
    whole, resumed = (load_file(tmp_path / "oof" / name / "fold0" / "weights.safetensors") for name in ("whole", "vol"))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
