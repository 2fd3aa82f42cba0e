"""The learned background mask: what is kept of a study, whose maps decide, the same in the cache and at inference."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TinyDataset, write_mask
from hypothesis import given
from hypothesis import strategies as st
from test_vertebra_volume import halves, volume_config
from tiny_pipeline import ALONE, Prepared

from cspine.blend import Blend
from cspine.bundle import from_runs
from cspine.config import Config, DatasetConfig, Preprocess
from cspine.data.background import keep_spine, spine_run
from cspine.data.cache import CachedStudy, bad_studies, build_cache, open_study
from cspine.data.prepare import prepare_and_report
from cspine.errors import UserError
from cspine.inference import LoadedMember, load_run
from cspine.level_maps import LevelMap, level_map, map_file, write_level_map
from cspine.paths import write_json
from cspine.predictor import Predictor
from cspine.report.reader import Reader
from cspine.tables import read_folds
from cspine.tasks.base import StudyImages
from cspine.training import train_fold


def one_voxel(planes_mm: np.ndarray, side: int, place: tuple[int, int, int], field_mm: float) -> LevelMap:
    probabilities = np.zeros((7, len(planes_mm), side, side))
    probabilities[2][place] = 0.9
    return level_map(probabilities, planes_mm, field_mm)


@given(
    side=st.integers(5, 12),
    size=st.integers(8, 40),
    map_field_mm=st.floats(40, 90),
    field_mm=st.floats(40, 90),
    margin_mm=st.floats(0, 30),
    data=st.data(),
)
def test_what_is_kept_is_within_the_margin_of_a_level(
    side: int, size: int, map_field_mm: float, field_mm: float, margin_mm: float, data: st.DataObject
) -> None:
    planes_mm = np.arange(6)[::-1] * 7.0
    place = data.draw(st.tuples(st.integers(0, 5), st.integers(0, side - 1), st.integers(0, side - 1)))
    z_mm = np.linspace(planes_mm[0], planes_mm[-1], 11)
    settings = Preprocess(mask="learned", mask_run="vol", mask_margin_mm=margin_mm, field_mm=field_mm, size_px=size)
    volume = np.full((len(z_mm), 2, size, size), 7, np.uint8)
    cleared = keep_spine(volume, z_mm, one_voxel(planes_mm, side, place, map_field_mm), settings)
    assert (volume == 7).all()
    assert np.array_equal(cleared[:, 0], cleared[:, 1])

    voxel_mm = map_field_mm / side
    pixels_mm = ((np.arange(size) + 0.5) / size - 0.5) * field_mm
    level_mm = [(index + 0.5) * voxel_mm - map_field_mm / 2 for index in place[1:]]
    distance_mm = np.sqrt(
        (z_mm - planes_mm[place[0]])[:, None, None] ** 2
        + (pixels_mm - level_mm[0])[:, None] ** 2
        + (pixels_mm - level_mm[1]) ** 2
    )
    # A pixel is judged by the voxel it is in, whose middle is so far away at most.
    rounding_mm = np.sqrt(2 * (voxel_mm / 2) ** 2 + 3.5**2)
    beyond_map = (np.abs(pixels_mm) > map_field_mm / 2)[:, None] | (np.abs(pixels_mm) > map_field_mm / 2)
    kept = cleared[:, 0] == 7
    assert not kept[distance_mm > margin_mm + rounding_mm + 1e-6].any()
    assert kept[(distance_mm < margin_mm - rounding_mm - 1e-6) & ~beyond_map].all()
    assert not kept[:, beyond_map].any()


def test_a_study_without_a_level_stays_whole() -> None:
    volume = np.full((4, 1, 8, 8), 7, np.uint8)
    nothing = level_map(np.full((7, 4, 5, 5), 0.3), np.arange(4.0)[::-1], 20.0)
    settings = Preprocess(mask="learned", mask_run="vol", field_mm=20.0, size_px=8)
    assert (keep_spine(volume, np.arange(4.0)[::-1], nothing, settings) == 7).all()


def learned(config: DatasetConfig, **changes: object) -> DatasetConfig:
    settings = {"mask": "learned", "mask_run": "vol", "mask_margin_mm": 3.0, **changes}
    return replace(config, preprocess=replace(config.preprocess, **settings))  # type: ignore[arg-type]


def write_maps(run: Path, studies: list[CachedStudy], folds: dict[str, int]) -> None:
    """Of a study with a mask the map of its fold, of another the maps of both; fold k's level is in column 4 + 6 k."""
    for study in studies:
        planes_mm = np.linspace(study.geometry.z_mm[0], study.geometry.z_mm[-1], 8)
        for fold in (0, 1) if study.presence is None else (folds[study.uid],):
            made = one_voxel(planes_mm, 16, (3, 8, 4 + 6 * fold), 48.0)
            write_level_map(map_file(run / f"fold{fold}", study.uid), made)
    (run / "slices.parquet").touch()


@pytest.fixture
def mapped(tiny: TinyDataset, tmp_path: Path) -> tuple[TinyDataset, DatasetConfig]:
    for uid in tiny.uids[1:5]:
        write_mask(tiny.mask(uid), tiny.mask_labels())
    config = replace(tiny.config, paths=replace(tiny.config.paths, oof=str(tmp_path / "oof")))
    prepare_and_report(config, ("train",))
    write_maps(tmp_path / "oof" / "vol", [open_study(config, uid) for uid in tiny.uids], folds_of(tmp_path))
    return tiny, config


def folds_of(folder: Path) -> dict[str, int]:
    table = read_folds(folder / "in" / "folds.csv")
    return dict(zip(table["StudyInstanceUID"], table["fold"], strict=True))


def test_the_cache_keeps_what_the_fold_that_did_not_see_the_study_finds(
    mapped: tuple[TinyDataset, DatasetConfig], tmp_path: Path
) -> None:
    tiny, config = mapped
    masked = learned(config)
    assert build_cache(masked, "train", 1, progress=False).done == 6
    for uid in tiny.uids:
        plain, found = open_study(config, uid), open_study(masked, uid)
        bright = np.flatnonzero((np.array(found.volume) > 0).any(axis=(0, 1, 2)))
        assert 0 < len(bright) < 24
        if plain.presence is not None:
            # Voxels of 3 mm, pixels of 2 mm: the level's column and 3 mm beside it.
            middle = (4.5 + 6 * folds_of(tmp_path)[uid]) * 3 / 2
            assert abs(bright.mean() + 0.5 - middle) < 1.5
            assert np.array_equal(found.levels, plain.levels)
        assert np.array_equal(found.volume[found.volume > 0], plain.volume[found.volume > 0])


def test_a_map_made_again_makes_the_study_again(mapped: tuple[TinyDataset, DatasetConfig], tmp_path: Path) -> None:
    tiny, config = mapped
    masked = learned(config)
    build_cache(masked, "train", 1, progress=False)
    assert build_cache(masked, "train", 1, progress=False).kept == 6
    file = map_file(tmp_path / "oof" / "vol" / "fold0", tiny.uids[0])
    study = open_study(config, tiny.uids[0])
    planes_mm = np.linspace(study.geometry.z_mm[0], study.geometry.z_mm[-1], 8)
    write_level_map(file, one_voxel(planes_mm, 16, (3, 8, 12), 48.0))
    assert build_cache(masked, "train", 1, progress=False).done == 1


def test_a_study_without_a_map_is_listed(mapped: tuple[TinyDataset, DatasetConfig], tmp_path: Path) -> None:
    tiny, config = mapped
    for file in (tmp_path / "oof" / "vol").rglob(f"{tiny.uids[3]}.npz"):
        file.unlink()
    assert list(build_cache(learned(config), "train", 1, progress=False).bad) == [tiny.uids[3]]
    assert "no fold has a level map" in bad_studies(learned(config))[tiny.uids[3]]


@pytest.mark.parametrize(
    ("changes", "split", "told"),
    [
        ({"mask_run": None}, "train", r"needs preprocess\.mask_run"),
        ({"mask_run": "other"}, "train", r"needs the level maps .*set preprocess\.mask_run"),
        ({"field_mm": None}, "train", r"set preprocess\.field_mm"),
        ({}, "test", "the training studies alone"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    tiny: TinyDataset, changes: dict[str, object], split: str, told: str
) -> None:
    assert spine_run(tiny.config, split) is None
    with pytest.raises(UserError, match=told):
        spine_run(learned(tiny.config, **changes), split)


def test_a_run_reads_another_for_its_mask_only_where_the_mask_is_learned() -> None:
    head = Config(name="head", task="fracture/slice", stage1="v")
    assert head.reads == ("v",)
    settings = replace(head.preprocess, mask_run="vol")
    assert replace(head, preprocess=settings).reads == ("v",)
    assert replace(head, preprocess=replace(settings, mask="learned")).reads == ("vol", "v")


def images_of(study: CachedStudy) -> StudyImages:
    return StudyImages(np.array(study.volume), study.geometry.z_mm, study.geometry.spacing_mm)


@dataclass(frozen=True)
class Watched(LoadedMember):
    """A member that notes which pixels it predicts from."""

    seen: dict[str, np.ndarray]

    def infer(self, images: StudyImages, device: torch.device) -> np.ndarray:
        self.seen[self.config.name] = images.volume
        return super().infer(images, device)


def test_inference_clears_the_same_background(tmp_path: Path) -> None:
    prepared = Prepared(tmp_path)
    for uid in prepared.data.uids[1:5]:
        write_mask(prepared.data.mask(uid), halves())
    volume = volume_config(prepared, epochs=6)
    prepare_and_report(volume, ("train",))
    for fold in (0, 1):
        train_fold(volume, fold, ALONE)
    settings = replace(volume.preprocess, mask="learned", mask_run="vol", mask_margin_mm=1.0)
    runs = [replace(run, preprocess=settings) for run in (prepared.vertebra, prepared.fracture)]
    prepare_and_report(runs[0], ("train",))
    for run, fold in ((runs[0], 0), (runs[0], 1), (runs[1], 0)):
        train_fold(replace(run, train=replace(run.train, epochs=1)), fold, ALONE)
    write_json(prepared.oof / "ensemble" / "blend.json", Blend(("f",), (1.0,), 1.0, (0.0,) * 8).to_json())

    bundle = from_runs(prepared.oof)
    assert [member.config["name"] for member in bundle.stage1] == ["vol", "v"]
    predictor = Predictor(bundle, torch.device("cpu"))
    seen: dict[str, np.ndarray] = {}
    predictor.stage1 = [Watched(**vars(member), seen=seen) for member in predictor.stage1]
    predictor.members = [Watched(**vars(member), seen=seen) for member in predictor.members]
    plain, cached = (open_study(config, prepared.data.uids[0]) for config in (volume, runs[0]))
    assert (np.array(cached.volume) == 0).mean() > (np.array(plain.volume) == 0).mean() + 0.05
    # What decoding gives knows no learned mask; of vol the map alone is asked for.
    predictor.predict(lambda _: images_of(plain))
    assert seen.keys() == {"v", "f"}
    for volume_seen in seen.values():
        assert np.array_equal(volume_seen, cached.volume)
    with pytest.raises(UserError, match="its background mask comes from vol"):
        load_run(prepared.oof, "v", torch.device("cpu"))
    # A report loads what a run reads beside it.
    (prepared.oof / "ensemble" / "blend.json").unlink()
    reader = Reader(prepared.oof, "v", torch.device("cpu"))
    reader.finder = reader.runs["v"] = Watched(**vars(reader.finder), seen=seen)
    seen.clear()
    reader.read(prepared.data.images(prepared.data.uids[0]), "study")
    assert np.array_equal(seen["v"], cached.volume)
