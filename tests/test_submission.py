"""Every row once, whatever lies on the disk; nothing depends on the other studies; the file is valid from the start."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import damage
from tiny_pipeline import Prepared

from cspine import submission
from cspine.bundle import Bundle, from_runs
from cspine.errors import UserError
from cspine.phantom.writer import Order, make_dataset
from cspine.submission import all_rows, rows_and_images, submit
from cspine.tables import STUDY


@pytest.fixture(scope="module")
def bundle(trained: Prepared) -> Bundle:
    return from_runs(trained.oof)


def run(bundle: Bundle, rows: pd.DataFrame, images: Path, output: Path) -> pd.Series:
    assert submit(bundle, rows, images, output, "cpu", processes=1) == 0
    return pd.read_csv(output).set_index("row_id")["fractured"]


def test_the_rows_of_test_csv_in_their_order_and_the_prior_for_an_absent_study(
    trained: Prepared, bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rows, images = rows_and_images(trained.fracture, "test", None)
    found = run(bundle, rows, images, tmp_path / "s.csv")
    assert found.index.tolist() == rows["row_id"].tolist()
    assert found.between(0, 1).all()
    for target, prior in bundle.blend["priors"].items():
        assert found[f"1.2.absent_{target}"] == prior
    assert "1.2.absent: no such folder; its rows hold the prior" in capsys.readouterr().out


def test_a_study_alone_gets_what_it_gets_among_others(trained: Prepared, bundle: Bundle, tmp_path: Path) -> None:
    uids = trained.data.uids[:3]
    together = run(bundle, all_rows(uids), trained.test_images, tmp_path / "all.csv")
    for uid in uids:
        alone = run(bundle, all_rows([uid]), trained.test_images, tmp_path / "one.csv")
        assert (alone == together[alone.index]).all()


def test_bad_studies_cost_their_own_rows_only(trained: Prepared, bundle: Bundle, tmp_path: Path) -> None:
    good, truncated, foreign, empty = trained.data.uids[0], "1.2.truncated", "1.2.foreign", "1.2.empty"
    images = tmp_path / "images"
    for uid in (good, truncated, foreign):
        shutil.copytree(trained.test_images / trained.data.uids[0], images / uid)
    (images / empty).mkdir()
    for file in (images / truncated).iterdir():
        damage(file, 0.9)
    for file in sorted((images / foreign).iterdir())[:2]:
        file.write_bytes(b"this is no DICOM file")
    found = run(bundle, all_rows([truncated, empty, foreign, good]), images, tmp_path / "s.csv")
    alone = run(bundle, all_rows([good]), images, tmp_path / "one.csv")
    priors = bundle.blend["priors"]
    assert (found[alone.index] == alone).all()
    for uid in (truncated, empty):
        assert all(found[f"{uid}_{target}"] == prior for target, prior in priors.items())
    # Two of eight slices are left out; the rest is judged.
    assert any(found[f"{foreign}_{target}"] != prior for target, prior in priors.items())


def test_the_file_holds_the_priors_before_anything_else(
    bundle: Bundle, trained: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(submission, "Predictor", out_of_memory)
    with pytest.raises(MemoryError):
        submit(bundle, all_rows(trained.data.uids[:1]), trained.test_images, tmp_path / "s.csv", "cpu", 1)
    found = pd.read_csv(tmp_path / "s.csv")["fractured"].to_numpy()
    assert np.array_equal(found, list(bundle.blend["priors"].values()))


def test_altered_and_missing_weights_are_refused(trained: Prepared, tmp_path: Path) -> None:
    shutil.copytree(trained.oof, tmp_path / "oof")
    weights = tmp_path / "oof" / "f" / "fold1" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    rows = all_rows(trained.data.uids[:1])
    with pytest.raises(UserError, match="SHA-256"):
        submit(from_runs(tmp_path / "oof"), rows, trained.test_images, tmp_path / "s.csv", "cpu", 1)
    weights.unlink()
    with pytest.raises(UserError, match="is missing"):
        submit(from_runs(tmp_path / "oof"), rows, trained.test_images, tmp_path / "s.csv", "cpu", 1)


def test_without_an_ensemble_the_command_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"python src/ensemble\.py"):
        from_runs(tmp_path)


def test_a_folder_of_studies_is_asked_for_whole(trained: Prepared, tmp_path: Path) -> None:
    rows, images = rows_and_images(trained.fracture, "test", trained.test_images)
    assert images == trained.test_images
    assert sorted(set(rows[STUDY])) == sorted(trained.data.uids[:3])
    assert len(rows) == 24
    with pytest.raises(UserError, match="there is no study in it"):
        rows_and_images(trained.fracture, "test", tmp_path)


def test_the_public_stub_asks_for_studies_that_are_absent(trained: Prepared, bundle: Bundle, tmp_path: Path) -> None:
    make_dataset(tmp_path / "stub", Order(studies=0, test_studies=1, seed=0, matrix=32, spacing_mm=5, kaggle_stub=True))
    config = replace(trained.fracture, data=replace(trained.fracture.data, root=str(tmp_path / "stub")))
    rows, images = rows_and_images(config, "test", None)
    found = run(bundle, rows, images, tmp_path / "s.csv")
    assert found.index.tolist() == pd.read_csv(tmp_path / "stub" / "sample_submission.csv")["row_id"].tolist()
    assert (found == bundle.blend["priors"]["C1"]).all()
