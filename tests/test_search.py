"""A study searched by a run of detectors: which run, by which of its models, and on which slices."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from simulated_runs import SimulatedRuns
from tiny_pipeline import Prepared

from cspine.config import Localise
from cspine.data.cache import CachedStudy, open_study
from cspine.errors import UsageError, UserError
from cspine.inference import LoadedMember, load_run
from cspine.predictor import OpenStudy
from cspine.search import Search, choose_detector
from cspine.tables import STUDY, read_found_boxes
from cspine.tasks.base import StudyImages

CPU = torch.device("cpu")


def opened(study: CachedStudy, stage1: LoadedMember) -> OpenStudy:
    geometry = study.geometry
    images = StudyImages(np.array(study.volume), geometry.z_mm, geometry.spacing_mm)
    return OpenStudy(lambda _: images, {"v": stage1}, CPU)


def held_out_by(fold: int, searched: Prepared, folder: Path) -> tuple[Path, CachedStudy]:
    """An oof/ in which only this fold is trained, and a study with a mask that it held out."""
    for run in ("v", "d"):
        left_out = shutil.ignore_patterns(f"fold{1 - fold}", "lesions.csv")
        shutil.copytree(searched.oof / run, folder / run, ignore=left_out)
    boxes = read_found_boxes(folder / "d" / f"fold{fold}" / "predictions.csv")
    uid = next(uid for uid in searched.data.uids[1:5] if uid in set(boxes[STUDY]))
    return folder, open_study(searched.vertebra, uid)


@pytest.mark.parametrize("fold", [0, 1])
def test_the_fold_that_held_a_study_out_finds_its_boxes_out_of_fold(
    searched: Prepared, tmp_path: Path, fold: int
) -> None:
    oof, study = held_out_by(fold, searched, tmp_path)
    search = Search(oof, load_run(oof, "d", CPU))
    known = search.find(study.uid, opened(study, load_run(oof, "v", CPU)), study.geometry, study.crop, None)
    new = search.find("new", opened(study, load_run(oof, "v", CPU)), study.geometry, study.crop, None)
    assert len(known)
    assert new[STUDY].unique().tolist() == ["new"]
    assert np.array_equal(new[["file_number", "level"]], known[["file_number", "level"]])
    sides = ["x", "y", "width", "height", "score"]
    assert np.allclose(new[sides].to_numpy(float), known[sides].to_numpy(float), atol=0.02)
    assert search.note(study.uid, 2) == "Lesions by d: 2 boxes found out of fold."
    assert search.note("new", 0) == "Lesions by d: no boxes found."


def test_all_folds_search_a_new_study_and_their_order_changes_nothing(searched: Prepared) -> None:
    study = open_study(searched.vertebra, searched.data.uids[0])
    member, stage1 = load_run(searched.oof, "d", CPU), load_run(searched.oof, "v", CPU)
    assert len(member.models) == 2

    def find(by: LoadedMember) -> np.ndarray:
        search = Search(searched.oof, by)
        search.least_score = 0.0
        found = search.find("new", opened(study, stage1), study.geometry, study.crop, None)
        return found[["file_number", "x", "y", "width", "height", "score"]].to_numpy(float)

    both, one, other = (find(replace(member, models=models)) for models in (member.models, *zip(member.models)))
    assert 0 < both[:, -1].max() <= max(one[:, -1].max(), other[:, -1].max())
    assert np.array_equal(find(replace(member, models=member.models[::-1])), both)
    assert np.allclose(find(replace(member, models=member.models[:1] * 2)), one, atol=0.011)


def test_only_slices_of_the_levels_taken_for_fractured(searched: Prepared, tmp_path: Path) -> None:
    shutil.copytree(searched.oof, tmp_path / "oof")
    oof, stage1 = tmp_path / "oof", load_run(searched.oof, "v", CPU)
    member = load_run(oof, "d", CPU)
    member = replace(member, config=replace(member.config, localise=Localise(search="fractured")))
    with pytest.raises(UserError, match=r"blend\.json is missing; make it with: python src/ensemble\.py"):
        Search(oof, member)
    (oof / "ensemble").mkdir()
    (oof / "ensemble" / "blend.json").write_text("{}")
    search, study = Search(oof, member), open_study(searched.vertebra, searched.data.uids[0])
    search.least_score = 0.0
    presence = np.zeros((8, 7))
    presence[:4, 0] = presence[3:, 1] = 1.0

    class Given(LoadedMember):
        def infer(self, images: StudyImages, device: torch.device) -> np.ndarray:  # noqa: ARG002
            return presence

    def slices(*levels: int) -> set[int]:
        fractured = np.isin(np.arange(7), levels)
        asked = opened(study, Given(**vars(stage1)))
        found = search.find("new", asked, study.geometry, study.crop, fractured)
        return set(np.searchsorted(study.geometry.file_numbers, found["file_number"]).tolist())

    every = slices(0, 1)
    assert every - {0, 1, 2, 3}
    assert every - {3, 4, 5, 6, 7}
    assert slices(0) == every & {0, 1, 2, 3}
    assert slices(1) == every & {3, 4, 5, 6, 7}
    assert slices() == set()


def test_a_known_study_needs_the_boxes_of_all_folds_and_other_runs_find_none(
    searched: Prepared, tmp_path: Path
) -> None:
    shutil.copytree(searched.oof, tmp_path / "oof")
    oof = tmp_path / "oof"
    study, stage1 = open_study(searched.vertebra, searched.data.uids[0]), load_run(oof, "v", CPU)
    (oof / "d" / "boxes.csv").unlink()
    search = Search(oof, load_run(oof, "d", CPU))
    search.find("new", opened(study, stage1), study.geometry, study.crop, None)
    with pytest.raises(UserError, match=r"boxes\.csv is missing; make it with: .* named d> --fold all"):
        search.find(study.uid, opened(study, stage1), study.geometry, study.crop, None)
    with pytest.raises(UserError, match="v is a run of vertebra/image, which finds no boxes"):
        Search(oof, stage1)


def test_the_one_whole_run_of_detectors_searches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = SimulatedRuns(tmp_path)
    assert choose_detector(runs.oof, None) == "heat"
    runs.add_vertebra("v")
    runs.add_fold("half", "localise/ssd", 0)
    assert choose_detector(runs.oof, None) == "heat"
    assert capsys.readouterr().out.startswith("passed over half: folds 1, 2 missing")
    for name in ("one", "two"):
        for fold in range(runs.fold_count):
            runs.add_fold(name, "localise/ssd", fold)
        (runs.oof / name / "boxes.csv").touch()
        if name == "one":
            assert choose_detector(runs.oof, None) == "one"
    with pytest.raises(UsageError, match=r"several runs of detectors \(one, two\).*--detector one, .*--detector none"):
        choose_detector(runs.oof, None)
    assert choose_detector(runs.oof, "half") == "half"
    assert choose_detector(runs.oof, "heat") == "heat"
    assert choose_detector(runs.oof, "none") is None


def test_boxes_count_that_score_what_one_lesion_a_study_does(searched: Prepared, tmp_path: Path) -> None:
    shutil.copytree(searched.oof, tmp_path / "oof")
    file = tmp_path / "oof" / "d" / "lesions.csv"
    member, stage1 = load_run(tmp_path / "oof", "d", CPU), load_run(searched.oof, "v", CPU)
    study = open_study(searched.vertebra, searched.data.uids[0])
    boxes = read_found_boxes(tmp_path / "oof" / "d" / "boxes.csv")
    mine = boxes[boxes[STUDY] == study.uid]["score"].sort_values(ascending=False)
    assert len(mine) > 2
    cut, studies = float(mine.iloc[1]), len(searched.data.uids)
    for rows, least in (([0.99] * (studies - 1) + [cut, 0.01, 0.01], cut), ([0.99] * studies, 0.0)):
        pd.DataFrame({"score": rows}).sample(frac=1, random_state=0).to_csv(file, index=False)
        search = Search(tmp_path / "oof", member)
        assert search.least_score == pytest.approx(least)
        found = search.find(study.uid, opened(study, stage1), study.geometry, study.crop, None)
        assert len(found) == (mine >= least).sum()
    assert "found out of fold." in search.note(study.uid, 2)
