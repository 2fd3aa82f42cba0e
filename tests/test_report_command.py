"""python src/report.py on tiny trained runs: of a study, a folder, a NIfTI file and all studies of a split."""

import re
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import body_hu, write_study
from simulated_runs import Command, command
from tiny_pipeline import Prepared

from cspine.anatomy import LEVELS
from cspine.calibrations import frequency
from cspine.config import Preprocess
from cspine.data.dicom import load_study
from cspine.data.preprocess import plan_crop
from cspine.inference import load_run
from cspine.report.reader import map_from_slices
from cspine.report.write import out_of_fold_row
from cspine.search import Search
from cspine.tables import STUDY, read_found_boxes, read_study_table


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return command("src/report.py", monkeypatch, capsys)


def cells(page: str, level: str) -> list[str]:
    """The texts of the level's row."""
    row = next(row for row in re.findall(r"<tr.*?</tr>", page) if f">{level}<" in row)
    return [re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<td.*?</td>", row)]


def test_a_study_of_the_dataset_has_its_out_of_fold_probabilities(
    trained: Prepared, report: Command, tmp_path: Path
) -> None:
    uid = trained.data.uids[1]
    done = report("--study", uid, "--out", tmp_path, *trained.overrides)
    assert done.returncode == 0, done.stderr
    assert "seconds: decoding" in done.stdout
    assert "beyond reading and inference" in done.stdout
    page = (tmp_path / f"{uid}.html").read_text()
    assert "Its probabilities are out of fold" in page
    row = read_study_table(trained.oof / "ensemble" / "oof.csv").set_index(STUDY).loc[uid]
    for level in LEVELS:
        assert cells(page, level)[1] == f"{frequency(np.array(row[level])):.3f}"
    assert {file.name for file in tmp_path.iterdir()} >= {f"{uid}.html", f"{uid}-sagittal.png", f"{uid}-slices.png"}
    assert out_of_fold_row(trained.oof, "another") is None


def test_a_folder_shows_no_name_unless_asked_and_never_markup(
    trained: Prepared, report: Command, tmp_path: Path
) -> None:
    name = "<img src=x onerror=alert(1)>^Ann"
    folder = write_study(tmp_path / "in <b>" / "scan <i>", body_hu(), PatientName=name, PatientID="7&7")
    for asked in ([], ["--show-name"]):
        done = report("--input", folder, "--out", tmp_path / "out", *asked, *trained.overrides)
        assert done.returncode == 0, done.stderr
        page = (tmp_path / "out" / "scan <i>.html").read_text()
        assert "<img" not in page
        assert "<i>" not in page
        assert ("&lt;img src=x onerror=alert(1)&gt;^Ann 7&amp;7" in page) == bool(asked)
        assert "scan &lt;i&gt;" in page


def test_a_nifti_file_and_boxes(trained: Prepared, report: Command, tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path / "dicom", body_hu()))
    affine = np.diag([-1.0, -1, 1, 1]) @ study.geometry.affine
    array = np.ascontiguousarray(study.volume.transpose(2, 1, 0))
    nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / "scan.nii.gz")
    rows = [("scan", number, 14, 18, 4, 4, 0.7, "C2") for number in (3, 4)] + [("other", 3, 1, 1, 4, 4, 0.9, "")]
    boxes = pd.DataFrame(rows, columns=[STUDY, "file_number", "x", "y", "width", "height", "score", "level"])
    boxes.to_csv(tmp_path / "boxes.csv", index=False)
    words = ["--input", tmp_path / "scan.nii.gz", "--out", tmp_path, "--boxes", tmp_path / "boxes.csv"]
    done = report(*words, *trained.overrides)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "scan.html").read_text()
    assert page.count('<tr data-go="lesion-') == 1
    assert report("--input", tmp_path / "scan.nii.gz", "--show-name", *trained.overrides).returncode == 1


def test_all_studies_of_a_split_get_an_index(trained: Prepared, report: Command, tmp_path: Path) -> None:
    (trained.test_images / "1.2.bad").mkdir(exist_ok=True)
    try:
        done = report("--all", "--out", tmp_path, *trained.overrides)
    finally:
        shutil.rmtree(trained.test_images / "1.2.bad")
    assert done.returncode == 0, done.stderr
    index = (tmp_path / "index.html").read_text()
    for uid in trained.data.uids[:3]:
        assert f'<a href="{uid}.html">' in index
        assert (tmp_path / f"{uid}.html").exists()
    assert "1.2.bad</td><td></td><td>no report" in index
    told = [float(value) for value in re.findall(r"<td>(0\.\d{3})</td>", index)]
    assert told == sorted(told, reverse=True)
    assert (tmp_path / "lesions.csv").read_text().startswith("StudyInstanceUID,lesion,level")


@pytest.fixture
def new_study(searched: Prepared, tmp_path: Path) -> Path:
    """The files of a study under a name that nobody was trained on."""
    return Path(shutil.copytree(searched.data.images(searched.data.uids[0]), tmp_path / "new"))


def test_the_one_run_of_detectors_searches_a_new_study(
    searched: Prepared, report: Command, new_study: Path, tmp_path: Path
) -> None:
    pages = {}
    # Without the run's lesions nothing tells which score is little, and all boxes are shown.
    shutil.copytree(searched.oof, tmp_path / "oof", ignore=shutil.ignore_patterns("lesions.csv"))
    overrides = [*searched.overrides, f"paths.oof={tmp_path / 'oof'}"]
    for detector in ([], ["--detector", "d"], ["--detector", "none"]):
        done = report("--input", new_study, "--out", tmp_path / "out", *detector, *overrides)
        assert done.returncode == 0, done.stderr
        assert bool(re.search(r"inference \d+\.\d, search \d", done.stdout)) == ("none" not in detector)
        pages[detector[-1] if detector else ""] = (tmp_path / "out" / "new.html").read_text()
    assert re.search(r"Lesions by d: \d+ boxes found\.", pages[""])
    assert pages[""].count('<tr data-go="lesion-') > 0
    assert pages["d"] == pages[""]
    assert pages["none"].count('<tr data-go="lesion-') == pages["none"].count("Lesions by") == 0


def test_all_studies_that_the_detectors_know_have_their_boxes_from_out_of_fold(
    searched: Prepared, report: Command, tmp_path: Path
) -> None:
    done = report("--all", "--split", "train", "--out", tmp_path, *searched.overrides)
    assert done.returncode == 0, done.stderr
    lesions = pd.read_csv(tmp_path / "lesions.csv", dtype={STUDY: str})
    boxes = read_found_boxes(searched.oof / "d" / "boxes.csv")
    assert len(boxes)
    least = Search(searched.oof, load_run(searched.oof, "d", torch.device("cpu"))).least_score
    boxes = boxes[boxes["score"] >= least]
    surest = boxes.groupby(STUDY)["score"].max()
    assert lesions.groupby(STUDY)["score"].max().to_dict() == pytest.approx(surest.to_dict())
    for uid in searched.data.uids:
        told = re.search(r"Lesions by d: (\w+) box(es)? found out of fold", (tmp_path / f"{uid}.html").read_text())
        assert told is not None
        assert told[1] == str((boxes[STUDY] == uid).sum() or "no")


def test_of_several_runs_of_detectors_one_must_be_named(
    searched: Prepared, report: Command, new_study: Path, tmp_path: Path
) -> None:
    shutil.copytree(searched.oof, tmp_path / "oof")
    shutil.copytree(searched.oof / "d", tmp_path / "oof" / "e")
    words = ["--input", new_study, "--out", tmp_path, *searched.overrides, f"paths.oof={tmp_path / 'oof'}"]
    done = report(*words)
    assert done.returncode == 2
    assert "several runs of detectors (d, e)" in done.stderr
    assert report(*words, "--detector", "v").returncode == 1
    assert report(*words, "--detector", "d", "--boxes", tmp_path / "boxes.csv").returncode == 2
    # Boxes that are given need no choice.
    shutil.copy(searched.oof / "d" / "boxes.csv", tmp_path / "boxes.csv")
    done = report(*words, "--boxes", tmp_path / "boxes.csv")
    assert done.returncode == 0, done.stderr
    assert "search" not in done.stdout


def test_misuse_and_missing_runs_are_told(trained: Prepared, report: Command, tmp_path: Path) -> None:
    assert report(*trained.overrides).returncode == 2
    assert report("--input", tmp_path / "none", *trained.overrides).returncode == 2
    done = report("--study", trained.data.uids[0], *trained.overrides, f"paths.oof={tmp_path / 'empty'}")
    assert done.returncode == 1
    assert "no trained vertebra run" in done.stderr


def test_without_heads_levels_alone(trained: Prepared, report: Command, tmp_path: Path) -> None:
    shutil.copytree(trained.oof / "v", tmp_path / "oof" / "v")
    words = ["--study", trained.data.uids[0], "--out", tmp_path, *trained.overrides, f"paths.oof={tmp_path / 'oof'}"]
    done = report(*words)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / f"{trained.data.uids[0]}.html").read_text()
    assert "No fracture head is trained" in page
    assert 'id="heat"' not in page


def test_levels_known_by_slices_lie_about_the_bodies(tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path / "a", body_hu()))
    presence = np.zeros((8, 7))
    presence[2:5, 1] = 0.9
    crop = plan_crop(study.volume, study.geometry, Preprocess(field_mm=200.0, size_px=64))
    found = map_from_slices(presence, study, crop)
    planes, rows, columns = np.nonzero(found.probabilities[1] > 127)
    assert set(planes) == {2, 3, 4}
    assert found.plane_z_mm == pytest.approx(study.geometry.z_mm)
    # The bone is at rows 18 to 21 and columns 14 to 17 of pixels of 2 mm.
    side = found.probabilities.shape[-1]
    y, x = crop.to_original((rows + 0.5) * 64 / side - 0.5, (columns + 0.5) * 64 / side - 0.5)
    assert x.min() < 14 < 17 < x.max()
    assert (x.min() + x.max()) / 2 == pytest.approx(15.5, abs=2.5)
    assert y.min() < 18 < 21 < y.max()
