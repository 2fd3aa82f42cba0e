"""Level maps of a trained volume run: out-of-fold, the same at inference, written whole, refused when unfit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_mask
from test_vertebra_volume import halves, model_of, volume_config
from tiny_pipeline import ALONE, Prepared

from cspine.bundle import from_runs
from cspine.config import Augment, Config, Crop, Model
from cspine.data.cache import CachedStudy, open_study
from cspine.data.grown_map import grow_maps
from cspine.data.prepare import prepare_and_report
from cspine.ensembling import choose_members, fit_ensemble, write_ensemble
from cspine.errors import UserError
from cspine.inference import load_run
from cspine.level_maps import (
    LevelMap,
    level_map,
    map_file,
    mean_map,
    read_level_map,
    stage1_level_map,
    write_level_map,
)
from cspine.paths import read_json, write_json
from cspine.predictor import Predictor
from cspine.tables import read_folds
from cspine.tasks.base import StudyImages
from cspine.tasks.vertebra_volume import Task, segment
from cspine.training import train_fold


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Prepared, Config]:
    """The masks of fold 1 stand on their heads, so that each fold learns the other order."""
    prepared = Prepared(tmp_path_factory.mktemp("maps"))
    fold_of = folds_of(prepared)
    for uid in prepared.data.uids[1:5]:
        write_mask(prepared.data.mask(uid), halves()[:: 1 - 2 * fold_of[uid]])
    prepare_and_report(prepared.data.config, ("train",))
    config = volume_config(prepared, epochs=6)
    for fold in (0, 1):
        train_fold(config, fold, ALONE)
    return prepared, config


def folds_of(prepared: Prepared) -> dict[str, int]:
    table = read_folds(prepared.folder / "in" / "folds.csv")
    return dict(zip(table["StudyInstanceUID"], table["fold"], strict=True))


def images_of(study: CachedStudy) -> StudyImages:
    return StudyImages(np.array(study.volume), study.geometry.z_mm, study.geometry.spacing_mm)


def voxels(config: Config, study: CachedStudy, folds: list[int]) -> np.ndarray:
    models = [model_of(config, fold) for fold in folds]
    return 255 * segment(models, config, images_of(study), torch.device("cpu"))


def test_a_masked_study_has_the_map_of_the_fold_that_did_not_see_it(trained: tuple[Prepared, Config]) -> None:
    prepared, config = trained
    fold_of = folds_of(prepared)
    for uid in prepared.data.uids[1:5]:
        study = open_study(config, uid)
        found = stage1_level_map(replace(config, stage1="vol"), uid, study.geometry.z_mm).probabilities
        own, other = (voxels(config, study, [fold]) for fold in (fold_of[uid], 1 - fold_of[uid]))
        assert np.abs(found - own).max() <= 0.51
        assert np.abs(found - other).max() > 2


def test_a_study_without_a_mask_has_the_mean_as_at_inference(trained: tuple[Prepared, Config]) -> None:
    prepared, config = trained
    study = open_study(config, prepared.data.uids[0])
    found = stage1_level_map(replace(config, stage1="vol"), study.uid, study.geometry.z_mm)
    inferred = load_run(prepared.oof, "vol", torch.device("cpu")).map_levels(images_of(study), torch.device("cpu"))
    assert np.abs(found.probabilities - inferred.probabilities.astype(float)).max() <= 1
    assert np.abs(inferred.probabilities - voxels(config, study, [0, 1])).max() <= 0.51
    assert np.array_equal(found.plane_z_mm, inferred.plane_z_mm)
    assert found.field_mm == inferred.field_mm == config.preprocess.field_mm


def test_each_models_map_is_grown_so_that_the_mean_is_that_of_the_folds(trained: tuple[Prepared, Config]) -> None:
    prepared, config = trained
    images, cpu = images_of(open_study(config, prepared.data.uids[0])), torch.device("cpu")
    growing = replace(config, volume=replace(config.volume, grow_mm=30.0))
    models = [model_of(config, fold) for fold in (0, 1)]
    folds = [Task.map_levels([model], growing, images, cpu) for model in models]
    both = Task.map_levels(models, growing, images, cpu)
    assert np.array_equal(both.probabilities, mean_map(folds).probabilities)
    for model, grown in zip(models, folds, strict=True):
        plain = Task.map_levels([model], config, images, cpu)
        assert np.array_equal(
            grown.probabilities, grow_maps([plain], images.volume, images.z_mm, growing).probabilities
        )
        assert not np.array_equal(grown.probabilities, plain.probabilities)
    blind = replace(growing, preprocess=replace(growing.preprocess, windows=("soft_tissue",)))
    with pytest.raises(UserError, match="needs a window that shows bone"):
        Task(blind, 0)


def test_the_map_lies_where_the_mask_does(trained: tuple[Prepared, Config]) -> None:
    """What fold 0's studies are told to be C1 is what fold 1's masks call C2, and the other way round."""
    prepared, config = trained
    study = open_study(config, prepared.data.uids[1])
    found = stage1_level_map(replace(config, stage1="vol"), study.uid, study.geometry.z_mm)
    weights = found.probabilities[0].astype(float) ** 2
    centre_mm = (weights.sum(axis=(1, 2)) * found.plane_z_mm).sum() / weights.sum()
    c1_mm, c2_mm = (study.geometry.z_mm[(study.levels == level).any(axis=(1, 2))].mean() for level in (1, 2))
    assert abs(centre_mm - c2_mm) < 0.8 * abs(centre_mm - c1_mm)
    mask = study.levels > 0
    for axis in (1, 2):
        others = tuple({0, 1, 2} - {axis})
        place = (weights.sum(axis=others) * (np.arange(weights.shape[-1]) + 0.5)).sum() / weights.sum()
        truth = (np.flatnonzero(mask.any(axis=others)).mean() + 0.5) / mask.shape[axis]
        assert place / weights.shape[-1] == pytest.approx(truth, abs=4 / found.field_mm)


def test_a_run_without_maps_is_refused_with_the_command_that_makes_them(trained: tuple[Prepared, Config]) -> None:
    prepared, config = trained
    z_mm = open_study(config, prepared.data.uids[0]).geometry.z_mm
    with pytest.raises(UserError, match=r"needs the level maps .* configs/vertebra/volume\.yaml --fold all"):
        stage1_level_map(replace(config, stage1="v"), prepared.data.uids[0], z_mm)
    with pytest.raises(UserError, match="the key 'stage1'"):
        stage1_level_map(config, prepared.data.uids[0], z_mm)
    with pytest.raises(UserError, match="does not fit study"):
        stage1_level_map(replace(config, stage1="vol"), prepared.data.uids[0], z_mm + 12)
    train_fold(prepared.vertebra, 0, ALONE)
    slices_only = load_run(prepared.oof, "v", torch.device("cpu"))
    with pytest.raises(UserError, match="makes no level maps"):
        slices_only.map_levels(images_of(open_study(config, prepared.data.uids[0])), torch.device("cpu"))


def test_what_an_interrupted_run_wrote_stays(trained: tuple[Prepared, Config], tmp_path: Path) -> None:
    _, config = trained
    elsewhere = replace(config, paths=replace(config.paths, oof=str(tmp_path)), train=replace(config.train, epochs=1))
    train_fold(elsewhere, 0, ALONE)
    folder = tmp_path / "vol" / "fold0"
    files = sorted((folder / "levels").glob("*.npz"))
    assert len(files) == 4  # two masked of the fold, two without a mask
    made = files[0].stat().st_mtime_ns
    files[1].unlink()
    done = read_json(folder / "done.json")
    (folder / "done.json").unlink()
    train_fold(elsewhere, 0, ALONE, resume=True)
    assert files[0].stat().st_mtime_ns == made
    assert files[1].exists()
    assert read_json(folder / "done.json")["weights_sha256"] == done["weights_sha256"]
    write_json(folder / "done.json", done)


def made_map(value: float) -> LevelMap:
    return level_map(np.full((7, 4, 5, 5), value), np.arange(4.0)[::-1], 20.0)


def test_a_study_that_no_fold_holds_out_has_the_mean_or_the_map_of_the_full_model(
    trained: tuple[Prepared, Config], tmp_path: Path
) -> None:
    _, config = trained
    elsewhere = replace(config, stage1="run", paths=replace(config.paths, oof=str(tmp_path)))
    run, z_mm = tmp_path / "run", np.arange(4.0)[::-1]
    for fold, uid, value in ((0, "both", 0.2), (1, "both", 0.6), (2, "one", 0.8)):
        write_level_map(map_file(run / f"fold{fold}", uid), made_map(value))
    (run / "slices.parquet").touch()

    def grey(uid: str) -> set[int]:
        return set(np.unique(stage1_level_map(elsewhere, uid, z_mm).probabilities).tolist())

    assert (grey("both"), grey("one")) == ({102}, {204})
    write_level_map(map_file(run / "full", "both"), made_map(1.0))
    assert (grey("both"), grey("one")) == ({255}, {204})
    with pytest.raises(UserError, match="no fold has a level map of study other"):
        stage1_level_map(elsewhere, "other", z_mm)


def test_a_damaged_map_is_named(tmp_path: Path) -> None:
    file = map_file(tmp_path, "uid")
    write_level_map(file, made_map(0.5))
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"levels/uid\.npz: damaged"):
        read_level_map(file)


def test_the_predictor_gives_a_head_the_map_it_was_trained_on(trained: tuple[Prepared, Config]) -> None:
    prepared, config = trained
    head = replace(
        prepared.config("seq", "fracture/sequence"),
        stage1="vol",
        augment=Augment(share=0.0),
        crop=Crop(slices=3, side_mm=32.0, least_share=0.0, threshold=0.2),
        model=Model(name="sequence_classifier", backbone="test_resnet"),
        train=replace(config.train, epochs=1),
    )
    for fold in (0, 1):
        train_fold(head, fold, ALONE)
    write_ensemble(fit_ensemble(choose_members(prepared.oof, ["seq"]), head), prepared.oof / "ensemble")
    predictor = Predictor(from_runs(prepared.oof), torch.device("cpu"))
    study = open_study(config, prepared.data.uids[0])
    images = images_of(study)
    found = stage1_level_map(head, study.uid, study.geometry.z_mm)
    alone = load_run(prepared.oof, "seq", torch.device("cpu"))
    expected = alone.infer(images.with_stage1(None, lambda: found), torch.device("cpu"))
    assert len(set(expected[1:3])) == 2  # the two levels of the masks are judged, each for itself
    assert predictor.predict(lambda _: images) == pytest.approx(predictor.blend.apply([expected[None]])[0], abs=1e-3)
