"""Folds from start to finish on a tiny dataset: what is trained, predicted, joined, skipped, refused and resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from tiny_pipeline import ALONE, Prepared

from cspine.anatomy import LEVELS, TARGETS
from cspine.bundle import Bundle, from_runs
from cspine.config import config_hash
from cspine.data.cache import open_study
from cspine.data.decode import DecodeTask, decode_study
from cspine.data.prepare import prepare_and_report
from cspine.errors import UsageError, UserError
from cspine.inference import LoadedMember, load_member, load_run, study_images
from cspine.paths import read_json
from cspine.pipeline import Job, plan
from cspine.tables import STUDY, read_folds, read_slices, read_study_table
from cspine.tasks.base import StudyImages, find_task
from cspine.training import side_by_side, train_fold, train_jobs

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    made = Prepared(tmp_path_factory.mktemp("training"))
    made.train()
    return made


def test_the_slice_table_holds_every_slice_once_and_says_where_it_comes_from(prepared: Prepared) -> None:
    table = read_slices(prepared.oof / "v" / "slices.parquet")
    assert len(table) == 6 * 8
    assert not table.duplicated([STUDY, "file_number"]).any()
    fold_of = read_folds(prepared.folder / "in" / "folds.csv").set_index(STUDY)["fold"]
    for uid, rows in table.groupby(STUDY):
        masked = uid in prepared.data.uids[1:5]
        assert set(rows["source"]) == {"oof" if masked else "mean"}
        assert set(rows["fold"]) == {fold_of[uid] if masked else -1}
        assert rows["z_mm"].is_monotonic_decreasing
        truth = rows[[f"{level}_true" for level in LEVELS]].to_numpy()
        if masked:
            assert truth.sum(axis=0).tolist() == [2, 3, 0, 0, 0, 0, 0]
        else:
            assert np.isnan(truth).all()


def test_a_masked_study_is_predicted_only_by_the_fold_that_did_not_see_it(prepared: Prepared) -> None:
    fold_of = read_folds(prepared.folder / "in" / "folds.csv").set_index(STUDY)["fold"]
    for fold in (0, 1):
        predicted = set(pd.read_parquet(prepared.oof / "v" / f"fold{fold}" / "predictions.parquet")[STUDY])
        assert {uid for uid in predicted if uid in prepared.data.uids[1:5]} == {
            uid for uid in prepared.data.uids[1:5] if fold_of[uid] == fold
        }


def test_a_study_without_mask_gets_the_mean_of_the_folds(prepared: Prepared) -> None:
    tables = [pd.read_parquet(prepared.oof / "v" / f"fold{fold}" / "predictions.parquet") for fold in (0, 1)]
    uid = prepared.data.uids[0]
    mean = np.mean([table.loc[table[STUDY] == uid, list(LEVELS)].to_numpy() for table in tables], axis=0)
    joined = read_slices(prepared.oof / "v" / "slices.parquet")
    assert np.allclose(joined.loc[joined[STUDY] == uid, list(LEVELS)].to_numpy(), mean)


def test_oof_holds_every_study_once_in_its_fold(prepared: Prepared) -> None:
    table = read_study_table(prepared.oof / "f" / "oof.csv")
    folds = read_folds(prepared.folder / "in" / "folds.csv").set_index(STUDY)["fold"]
    assert sorted(table[STUDY]) == sorted(prepared.data.uids)
    assert (table["fold"].to_numpy() == folds.loc[table[STUDY]].to_numpy()).all()


def test_inference_from_dicom_equals_the_out_of_fold_prediction(prepared: Prepared) -> None:
    """Two ways to the same number: cache, data set and loader; decoder, batches and bundle."""
    fold, uid = 0, read_folds(prepared.folder / "in" / "folds.csv").query("fold == 0")[STUDY].iloc[0]
    decoded = decode_study(DecodeTask(uid, prepared.data.images(uid), (prepared.fracture.preprocess,)))
    assert decoded.geometry is not None
    table = read_slices(prepared.oof / "v" / "slices.parquet")
    presence = table.loc[table[STUDY] == uid, list(LEVELS)].to_numpy()
    images = StudyImages(
        decoded.volumes[prepared.fracture.preprocess], decoded.geometry.z_mm, decoded.geometry.spacing_mm
    ).with_stage1(presence)
    member = _member_of_fold(prepared, fold)
    found = member.infer(images, torch.device("cpu"))
    oof = read_study_table(prepared.oof / "f" / "oof.csv").set_index(STUDY).loc[uid, list(TARGETS)].to_numpy(float)
    # The batches differ, and with them the order of float32 sums.
    assert np.allclose(found, oof, atol=1e-5)


def _member_of_fold(prepared: Prepared, fold: int) -> LoadedMember:
    (prepared.oof / "ensemble").mkdir(exist_ok=True)
    (prepared.oof / "ensemble" / "blend.json").write_text(json.dumps({"members": ["f"]}))
    bundle = from_runs(prepared.oof)
    member = bundle.members[0]
    one = replace(member, models=(member.models[fold],))
    return load_member(one, Bundle(bundle.folder, (), (one,), {}), torch.device("cpu"))


def test_a_study_without_images_gets_the_prevalence_of_the_other_folds(tmp_path: Path) -> None:
    made = Prepared(tmp_path)
    uid = made.data.uids[2]
    for file in made.data.images(uid).iterdir():
        file.unlink()
    prepare_and_report(made.data.config, ("train",))
    made.train()
    table = read_study_table(made.oof / "f" / "oof.csv").set_index(STUDY)
    labels = made.data.labels.set_index(STUDY)
    others = labels.loc[table.index[table["fold"] != table.loc[uid, "fold"]], list(TARGETS)].mean()
    assert np.allclose(table.loc[uid, list(TARGETS)].to_numpy(float), others.to_numpy())


def test_done_is_skipped_changed_is_refused_restart_begins_again(prepared: Prepared) -> None:
    # Trained here, not only by the fixture: sums over other numbers of threads differ in their last digits.
    train_jobs([Job(prepared.vertebra, 0)], restart=True)
    weights = prepared.oof / "v" / "fold0" / "weights.safetensors"
    before = weights.stat().st_mtime_ns
    train_jobs([Job(prepared.vertebra, 0)])
    assert weights.stat().st_mtime_ns == before
    changed = replace(prepared.vertebra, train=replace(prepared.vertebra.train, seed=1))
    with pytest.raises(UserError, match=r"train\.seed: 0 -> 1.*--restart"):
        train_fold(changed, 0, ALONE)
    old = load_file(weights)
    train_jobs([Job(prepared.vertebra, 0)], restart=True)
    assert weights.stat().st_mtime_ns != before
    assert all(torch.equal(value, old[key]) for key, value in load_file(weights).items())


def test_a_whole_run_begins_again_with_another_config(tmp_path: Path) -> None:
    made = Prepared(tmp_path)
    train_jobs([Job(made.vertebra, fold) for fold in (0, 1)])
    changed = replace(made.vertebra, train=replace(made.vertebra.train, seed=1))
    train_jobs([Job(changed, fold) for fold in (0, 1)], restart=True)
    hashes = {read_json(made.oof / "v" / f"fold{fold}" / "done.json")["config_hash"] for fold in (0, 1)}
    assert hashes == {config_hash(changed)}
    assert (made.oof / "v" / "slices.parquet").exists()


def test_other_folds_than_it_was_trained_on_are_refused(tmp_path: Path) -> None:
    made = Prepared(tmp_path)
    train_fold(made.vertebra, 0, ALONE)
    file = tmp_path / "in" / "folds.csv"
    folds = read_folds(file)
    folds["fold"] = 1 - folds["fold"]
    folds.to_csv(file, index=False)
    with pytest.raises(UserError, match="trained on other folds"):
        train_fold(made.vertebra, 0, ALONE)


def test_other_data_than_it_was_trained_on_is_refused(tmp_path: Path) -> None:
    """One label is another, which no fold and no file name shows."""
    made = Prepared(tmp_path)
    train_fold(made.vertebra, 0, ALONE)
    trained_on = json.loads((made.oof / "v" / "fold0" / "data.json").read_text())
    assert (trained_on["studies"], trained_on["slices"], trained_on["masks"]) == (6, 48, 4)
    train_fold(made.vertebra, 0, ALONE)
    made.data.labels.loc[0, "C2"], made.data.labels.loc[0, "C3"] = 0, 1
    made.data.write_tables()
    (tmp_path / "in" / "folds.csv").unlink()
    prepare_and_report(made.data.config, ("train",))
    with pytest.raises(UserError, match=r"fold0 was trained on other data than .*fingerprint\.json describes"):
        train_fold(made.vertebra, 0, ALONE)
    train_jobs([Job(made.vertebra, 0)], restart=True)


def test_a_head_on_all_data_holds_nothing_out_and_leaves_the_table(prepared: Prepared) -> None:
    before = (prepared.oof / "f" / "oof.csv").read_bytes()
    train_fold(prepared.fracture, None, ALONE)
    folder = prepared.oof / "f" / "full"
    assert (folder / "weights.safetensors").exists()
    assert not list(folder.glob("predictions*"))
    assert (prepared.oof / "f" / "oof.csv").read_bytes() == before


def test_a_run_of_all_data_alone_infers_and_gives_no_table(prepared: Prepared) -> None:
    alone = replace(prepared.vertebra, name="alone")
    train_fold(alone, None, ALONE)
    assert not (prepared.oof / "alone" / "slices.parquet").exists()
    run = load_run(prepared.oof, "alone", torch.device("cpu"))
    uid = prepared.data.uids[0]
    table = pd.read_parquet(prepared.oof / "alone" / "full" / "predictions.parquet")
    rows = table.loc[table[STUDY] == uid, list(LEVELS)].to_numpy()
    assert np.allclose(run.infer(_images(prepared, uid), torch.device("cpu")), rows, atol=1e-5)


def test_the_full_model_takes_the_place_of_the_mean_where_no_fold_saw_a_mask(prepared: Prepared) -> None:
    """The table after `--fold all` and then `--fold full`; inference gives an unseen study the same numbers."""
    both = replace(prepared.vertebra, name="both")
    for fold in (0, 1):
        train_fold(both, fold, ALONE)
    before = read_slices(prepared.oof / "both" / "slices.parquet").set_index([STUDY, "file_number"])
    train_fold(both, None, ALONE)
    after = read_slices(prepared.oof / "both" / "slices.parquet").set_index([STUDY, "file_number"])
    assert sorted(before.index) == sorted(after.index)
    assert set(before["source"]) == {"oof", "mean"}
    assert set(after["source"]) == {"oof", "full"}
    masked = before.index[before["source"] == "oof"]
    pd.testing.assert_frame_equal(before.loc[masked], after.loc[masked])
    uid = prepared.data.uids[0]
    found = load_run(prepared.oof, "both", torch.device("cpu")).infer(_images(prepared, uid), torch.device("cpu"))
    assert np.allclose(found, after.loc[uid, list(LEVELS)].to_numpy(), atol=1e-5)
    assert not np.allclose(found, before.loc[uid, list(LEVELS)].to_numpy(), atol=1e-3)


def test_a_full_model_of_another_config_makes_no_table_with_the_folds(prepared: Prepared) -> None:
    one = replace(prepared.vertebra, name="unlike")
    for fold in (0, 1):
        train_fold(one, fold, ALONE)
    other = replace(one, train=replace(one.train, epochs=1))
    with pytest.raises(UserError, match=r"full was trained with another config than .*fold0.*--restart"):
        train_fold(other, None, ALONE)


def _images(prepared: Prepared, uid: str) -> StudyImages:
    settings = prepared.vertebra.preprocess
    return study_images(decode_study(DecodeTask(uid, prepared.data.images(uid), (settings,))), settings)


def test_a_pipeline_trains_stage_one_whole_and_the_head_for_the_fold(prepared: Prepared) -> None:
    file = prepared.folder / "pipeline.yaml"
    (prepared.folder / "f1.yaml").write_text("base: f.yaml\nstage1: v\n")
    file.write_text("models: [v.yaml, f1.yaml]\n")
    jobs = plan(str(file), "1", [])
    assert [(job.config.name, job.fold) for job in jobs] == [("v", 0), ("v", 1), ("f", 1)]
    full = plan(str(file), "full", [])
    assert [(job.config.name, job.fold) for job in full] == [("v", 0), ("v", 1), ("v", None), ("f", None)]
    assert [job.fold for job in plan(str(prepared.folder / "v.yaml"), "0", [])] == [0]
    with pytest.raises(UserError, match="holds the folds 0 to 1"):
        plan(str(file), "2", [])
    with pytest.raises(UsageError, match="number from 0 to 1, all, or full"):
        plan(str(file), "-1", [])


def test_a_head_without_its_slice_table_names_the_command(prepared: Prepared) -> None:
    lonely = replace(prepared.fracture, name="lonely", stage1="nowhere")
    with pytest.raises(UserError, match=r"nowhere/slices\.parquet is missing; make it with: python src/train\.py"):
        train_fold(lonely, 0, ALONE)


def train_command(prepared: Prepared, *words: str) -> list[str]:
    return [sys.executable, "src/train.py", "--config", str(prepared.folder / "v.yaml"), "--fold", "0", *words]


def test_killed_and_resumed_equals_uninterrupted(prepared: Prepared) -> None:
    """SIGKILL at a moment nobody chose; the weights must be those of the uninterrupted run, bit for bit."""
    long = ("train.epochs=40", "train.checkpoint_every=1")
    whole = subprocess.run(train_command(prepared, *long, "name=whole"), cwd=ROOT, capture_output=True, check=False)
    assert whole.returncode == 0, whole.stderr
    process = subprocess.Popen(
        train_command(prepared, *long, "name=cut"), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    checkpoint = prepared.oof / "cut" / "fold0" / "last.ckpt"
    while not checkpoint.exists():
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(float(np.random.default_rng().uniform(0, 1)))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert checkpoint.exists(), "the training was over before it could be killed"
    refused = subprocess.run(
        train_command(prepared, *long, "name=cut"), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert "--resume" in refused.stderr
    assert "Traceback" not in refused.stderr
    resumed = subprocess.run(
        train_command(prepared, *long, "name=cut", "--resume"), cwd=ROOT, capture_output=True, check=False
    )
    assert resumed.returncode == 0, resumed.stderr
    one, other = (load_file(prepared.oof / name / "fold0" / "weights.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_a_head_starts_from_the_encoder_of_the_same_fold(prepared: Prepared) -> None:
    config = replace(prepared.fracture, model=replace(prepared.fracture.model, pretrained="stage1"))
    for fold in (0, 1):
        started = find_task(config.task)(config, fold).model().state_dict()
        source = load_file(prepared.oof / "v" / f"fold{fold}" / "weights.safetensors")
        assert all(torch.equal(value, started[key]) for key, value in source.items() if key.startswith("backbone."))
    with pytest.raises(UserError, match="needs the key 'stage1'"):
        find_task("vertebra/image")(replace(config, task="vertebra/image", stage1=None), 0).model()


def test_torchrun_trains_a_fold_with_two_processes(prepared: Prepared) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29517"]
    words = [*train_command(prepared, "name=two", "train.batch_size=4", "train.device=cpu")[1:]]
    done = subprocess.run([*launcher, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    account = json.loads((prepared.oof / "two" / "fold0" / "done.json").read_text())
    assert account["processes"] == 2
    one, two = (pd.read_parquet(prepared.oof / name / "fold0" / "predictions.parquet") for name in ("v", "two"))
    assert (one[[STUDY, "file_number"]] == two[[STUDY, "file_number"]]).all(axis=None)


def test_folds_side_by_side_equal_folds_in_turn(prepared: Prepared) -> None:
    words = ["--fold", "all", "--processes", "2", "name=beside"]
    command = [sys.executable, "src/train.py", "--config", str(prepared.folder / "v.yaml"), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for fold in ("fold0", "fold1"):
        one, other = (load_file(prepared.oof / name / fold / "weights.safetensors") for name in ("v", "beside"))
        assert one.keys() == other.keys()
        # The threads that compute differ, and with them the order of float32 sums.
        assert all(torch.allclose(one[key].float(), other[key].float(), atol=1e-2) for key in one)
    assert (prepared.oof / "beside" / "slices.parquet").exists()


def test_no_data_at_all_names_both_ways_to_get_some(tmp_path: Path) -> None:
    words = ["--fold", "0", f"paths.input={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "src/train.py", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "kaggle competitions download" in done.stderr
    assert "python src/phantom.py" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_cache_is_named_when_it_is_missing(prepared: Prepared) -> None:
    other = replace(prepared.vertebra, name="other", preprocess=replace(prepared.vertebra.preprocess, size_px=20))
    with pytest.raises(UserError, match=r"python src/prepare\.py"):
        train_fold(other, 0, ALONE)
    assert not (prepared.oof / "other" / "fold0" / "config.json").exists(), "a run that never began would be refused"
    assert open_study(prepared.vertebra, prepared.data.uids[0]).volume.shape == (8, 1, 24, 24)


def test_runs_stand_side_by_side_unless_one_reads_the_other(prepared: Prepared) -> None:
    head = replace(prepared.fracture, stage1=prepared.vertebra.name)
    other = replace(head, name="other")
    jobs = [Job(config, fold) for config in (prepared.vertebra, head, other) for fold in (0, 1)]
    assert side_by_side(jobs) == [jobs[:2], jobs[2:]]
    assert side_by_side(jobs[2:]) == [jobs[2:]]
