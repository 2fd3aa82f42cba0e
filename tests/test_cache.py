import dataclasses
import json
import os
import shutil
import signal
import time

import numpy as np
import pytest
from conftest import damage, write_mask
from test_nifti import ORIENTATIONS, write_nifti

from cspine.config import Preprocess
from cspine.data import cache
from cspine.data.cache import Outcome, Task, bad_studies, build_cache, cached_studies, open_study, prepare_study
from cspine.data.preprocess import preprocess
from cspine.data.workers import Died, run_isolated, run_with_second_try
from cspine.errors import UserError
from cspine.paths import cache_folder


def here(work, tasks, _processes, _timeout_s=None, _until=None):
    """`run_isolated` in this process, because starting others takes a second."""
    return ((task, work(task)) for task in tasks)


@pytest.fixture
def in_process(monkeypatch):
    monkeypatch.setattr("cspine.data.workers.run_isolated", here)


def build(tiny, split="train"):
    return build_cache(tiny.config, split, 1, progress=False)


@pytest.mark.usefixtures("in_process")
def test_cached_study_is_what_preprocess_makes(tiny):
    summary = build(tiny)
    assert (summary.done, summary.kept, summary.bad) == (6, 0, {})
    assert cached_studies(tiny.config) == tiny.uids
    for uid in tiny.uids[:2]:
        study = open_study(tiny.config, uid)
        expected = preprocess(tiny.volume, study.geometry, tiny.config.preprocess)
        assert np.array_equal(study.volume, expected)
        assert study.volume.dtype == np.uint8
    assert open_study(tiny.config, tiny.uids[0]).presence is None
    assert study.presence.argmax(axis=1)[:5].tolist() == [0, 0, 1, 1, 1]
    assert study.presence.sum() == 5
    assert study.geometry.file_numbers.tolist() == [8, 7, 6, 5, 4, 3, 2, 1]


@pytest.mark.usefixtures("in_process")
def test_only_changed_studies_are_done_again(tiny):
    build(tiny)
    assert build(tiny).kept == 6
    os.utime(tiny.images(tiny.uids[0]) / "1.dcm", (1, 1))
    write_mask(tiny.mask(tiny.uids[2]), tiny.mask_labels())
    facts = cache_folder(tiny.config) / f"{tiny.uids[3]}.json"
    facts.write_text(facts.read_text()[:50])
    (cache_folder(tiny.config) / f"{tiny.uids[4]}.npy").unlink()
    summary = build(tiny)
    assert (summary.done, summary.kept) == (4, 2)
    assert open_study(tiny.config, tiny.uids[2]).presence is not None


@pytest.mark.usefixtures("in_process")
def test_verify_finds_a_flipped_bit_and_makes_the_file_again(tiny):
    build(tiny)
    study = open_study(tiny.config, tiny.uids[0])
    whole = np.array(study.volume)
    content = bytearray(study.file.read_bytes())
    content[-1] ^= 1
    study.file.write_bytes(content)
    assert build(tiny).kept == 6
    summary = build_cache(tiny.config, "train", 1, progress=False, verify=True)
    assert (summary.done, summary.kept) == (1, 5)
    assert np.array_equal(study.volume, whole)


@pytest.mark.usefixtures("in_process")
def test_a_cut_cache_file_names_the_way_to_heal_it(tiny):
    build(tiny)
    study = open_study(tiny.config, tiny.uids[0])
    damage(study.file, 0.5)
    with pytest.raises(UserError, match=r"prepare\.py --verify"):
        _ = study.volume
    assert build_cache(tiny.config, "train", 1, progress=False, verify=True).done == 1


@pytest.mark.usefixtures("in_process")
def test_bad_studies_are_listed_tried_again_and_healed(tiny):
    folder = tiny.images(tiny.uids[0])
    content = {file: file.read_bytes() for file in folder.iterdir()}
    for file in content:
        damage(file, 0.5)
    damage(tiny.images(tiny.uids[1]) / "2.dcm", 0.5)
    summary = build(tiny)
    assert list(summary.bad) == [tiny.uids[0]]
    assert summary.skipped == {tiny.uids[1]: 1}
    assert "8 x truncated pixel data" in bad_studies(tiny.config)[tiny.uids[0]]
    assert tiny.uids[0] not in cached_studies(tiny.config)
    with pytest.raises(UserError, match=r"unusable.*--check"):
        open_study(tiny.config, tiny.uids[0])
    for file, data in content.items():
        file.write_bytes(data)
    assert build(tiny).done == 1
    assert bad_studies(tiny.config) == {}


@pytest.mark.usefixtures("in_process")
def test_a_study_that_became_bad_leaves_the_cache(tiny):
    build(tiny)
    for file in tiny.images(tiny.uids[0]).iterdir():
        file.unlink()
    tiny.images(tiny.uids[1]).rename(tiny.root / "elsewhere")
    assert build(tiny).bad == {tiny.uids[0]: "the folder is empty", tiny.uids[1]: "no such folder"}
    assert cached_studies(tiny.config) == tiny.uids[2:]


@pytest.mark.usefixtures("in_process")
def test_some_studies_alone_leave_what_is_known_of_the_others(tiny):
    for uid in tiny.uids[:2]:
        tiny.images(uid).rename(tiny.root / uid)
    build(tiny)
    (tiny.root / tiny.uids[1]).rename(tiny.images(tiny.uids[1]))
    summary = build_cache(tiny.config, "train", 1, progress=False, uids=tiny.uids[1:3])
    assert (summary.done, summary.kept) == (1, 1)
    assert set(bad_studies(tiny.config)) == {tiny.uids[0]}


@pytest.mark.usefixtures("in_process")
def test_bad_studies_of_the_other_split_stay_listed(tiny):
    tiny.images(tiny.uids[0]).rename(tiny.root / "elsewhere")
    (tiny.root / "test_images" / "9.9").mkdir(parents=True)
    build(tiny)
    build(tiny, "test")
    assert set(bad_studies(tiny.config)) == {tiny.uids[0], "9.9"}


@pytest.mark.usefixtures("in_process")
def test_a_mask_that_does_not_fit_costs_the_presence_only(tiny):
    write_mask(tiny.mask(tiny.uids[1]), tiny.mask_labels(), shift_mm=300)
    assert "lies inside its CT" in build(tiny).mask_problems[tiny.uids[1]]
    assert "lies inside its CT" in build(tiny).mask_problems[tiny.uids[1]]
    assert open_study(tiny.config, tiny.uids[1]).presence is None


def test_missing_cache_names_the_command_and_the_settings(tiny):
    with pytest.raises(UserError, match=r"python src/prepare\.py") as caught:
        open_study(tiny.config, tiny.uids[0])
    assert "preprocess.field_mm=48.0" in str(caught.value)
    other = dataclasses.replace(tiny.config, preprocess=Preprocess(size_px=32))
    assert cached_studies(other) == []
    assert bad_studies(other) == {}


@pytest.mark.usefixtures("in_process")
def test_a_cache_that_cannot_be_written_ends_the_run(tiny, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(UserError, match="No space left"):
        build(tiny)
    assert not list(cache_folder(tiny.config).glob("*"))


@pytest.mark.usefixtures("in_process")
def test_an_unforeseen_error_costs_one_study(tiny, monkeypatch):
    def fail(folder, *_):
        raise MemoryError("4 GB") if folder.name == tiny.uids[0] else ZeroDivisionError

    monkeypatch.setattr(cache, "prepare_volumes", fail)
    assert build(tiny).bad[tiny.uids[0]] == "MemoryError: 4 GB"


def crash_if_fast(task: Task) -> Outcome:
    """Stands in for a decoder that crashes on study ...2 unless it is pydicom, and on study ...3 always."""
    if task.uid.endswith("3") or (task.uid.endswith("2") and task.fast):
        os.kill(os.getpid(), signal.SIGSEGV)
    return prepare_study(task)


def test_the_death_of_a_process_costs_one_retry_by_pydicom(tiny, monkeypatch):
    monkeypatch.setattr(cache, "prepare_study", crash_if_fast)
    summary = build_cache(tiny.config, "train", 2, progress=False)
    assert summary.done == 5
    assert list(summary.bad) == [tiny.uids[2]]
    assert "ends the reading process" in bad_studies(tiny.config)[tiny.uids[2]]
    assert cached_studies(tiny.config) == [uid for uid in tiny.uids if uid != tiny.uids[2]]


def work(task):
    """One of the things that can happen in a worker."""
    if task == "stop":
        raise UserError("disk full")
    if task == "die":
        os._exit(3)
    time.sleep(0.01)
    return task * 2


def test_workers_yield_every_task_once():
    results = dict(run_isolated(work, ["a", "die", "b", "c"], 1))
    assert results == {"a": "aa", "b": "bb", "c": "cc", "die": Died(3)}


def test_a_task_that_dies_gets_a_second_try_and_only_that_one():
    second = {"die": "saved", "a": "wrong"}
    results = list(run_with_second_try(work, ["die", "a", "b"], 1, second.__getitem__))
    assert results == [("a", "aa"), ("b", "bb"), ("saved", "savedsaved")]
    assert list(run_with_second_try(work, ["die"], 1, lambda task: task)) == [("die", Died(3))]


def test_a_user_error_in_a_worker_ends_the_run():
    with pytest.raises(UserError, match="disk full"):
        list(run_isolated(work, ["a", "stop"], 1))


@pytest.mark.usefixtures("in_process")
def test_facts_are_plain_json(tiny):
    build(tiny)
    facts = json.loads((cache_folder(tiny.config) / f"{tiny.uids[1]}.json").read_text())
    assert facts["crop"]["size_px"] == 24
    assert facts["geometry"]["pixel_spacing_mm"] == [2.0, 2.0]
    assert facts["presence"][0] == [1, 0, 0, 0, 0, 0, 0]


def hang(task):
    if task == "hang":
        time.sleep(600)
    return task


def test_a_task_that_hangs_is_ended_and_the_others_go_on():
    results = dict(run_isolated(hang, ["a", "hang", "b"], 1, timeout_s=8))
    assert results == {"a": "a", "hang": Died(-signal.SIGKILL, timed_out=True), "b": "b"}


@pytest.mark.usefixtures("in_process")
def test_a_nifti_file_serves_as_a_study(tiny):
    build(tiny)
    uid, known = tiny.uids[1], open_study(tiny.config, tiny.uids[1])
    write_nifti(tiny.images(uid).with_name(f"{uid}.nii.gz"), tiny.volume, ORIENTATIONS[29])
    shutil.rmtree(tiny.images(uid))
    assert build(tiny).done == 1
    study = open_study(tiny.config, uid)
    assert np.array_equal(study.volume, known.volume)
    assert np.array_equal(study.presence, known.presence)
    assert build(tiny).kept == 6
