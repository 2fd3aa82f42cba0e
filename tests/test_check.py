import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import body_hu, damage, slice_dataset, write_mask, write_study
from test_nifti import write_nifti

from cspine.config import Data
from cspine.data import check_study
from cspine.data.check import Health, check_dataset
from cspine.data.check_report import SHOWN, health_text
from cspine.data.findings import Finding

CHECK_STUDY = check_study.check_study


def here(work, tasks, _processes, _timeout_s=None, _until=None):
    """`run_isolated` in this process, because starting others takes a second."""
    return ((task, work(task)) for task in tasks)


@pytest.fixture(autouse=True)
def in_process(monkeypatch):
    monkeypatch.setattr("cspine.data.workers.run_isolated", here)


def notes(tiny, *splits):
    """(kind, place) of all notes."""
    findings = check_dataset(tiny.config, splits or ("train",)).findings
    return {(finding.kind, Path(finding.where).name) for finding in findings if finding.severity == "note"}


def found(tiny, *splits):
    """(severity, what) of all findings that are no notes; the tiny studies are short, and half of them ascend."""
    findings = check_dataset(tiny.config, splits or ("train",)).findings
    assert all(finding.kind and finding.where and finding.remedy for finding in findings)
    return [(finding.severity, finding.what) for finding in findings if finding.severity != "note"]


def one(tiny, *splits):
    findings = found(tiny, *splits)
    assert len(findings) == 1, findings
    return findings[0]


def test_a_sound_dataset_has_no_findings(tiny):
    assert found(tiny) == []


def test_missing_dataset(tiny):
    tiny.config = dataclasses.replace(tiny.config, data=Data(root="no/where"))
    severity, what = one(tiny)
    assert severity == "error"
    assert "no/where" in what


def test_missing_table_column_and_images(tiny):
    tiny.labels = tiny.labels.drop(columns="C3")
    tiny.write_tables()
    assert "the column 'C3' is missing" in one(tiny)[1]
    (tiny.root / "train.csv").unlink()
    (tiny.root / "train_images").rename(tiny.root / "images")
    assert [severity for severity, _ in found(tiny)] == ["error", "error"]


def test_table_and_folders_disagree(tiny):
    tiny.images(tiny.uids[4]).rename(tiny.images("7.7"))
    assert found(tiny) == [
        ("error", "the study is in train.csv and has no images"),
        ("warning", "the study has images and no row in train.csv"),
    ]


def test_unusable_study_is_an_error(tiny):
    for file in tiny.images(tiny.uids[2]).iterdir():
        file.unlink()
    assert one(tiny) == ("error", "the folder is empty")


def foreign(folder):
    (folder / "notes.txt").write_text("hello")


def truncated(folder):
    damage(folder / "1.dcm", 0.6)


def mixed(folder):
    slice_dataset(body_hu(1, 16, 16)[0], 100, 1).save_as(folder / "1.dcm")


def doubled(folder):
    slice_dataset(body_hu(1)[0], 97, 20).save_as(folder / "20.dcm")


def thinned(folder):
    (folder / "4.dcm").unlink()


@pytest.mark.parametrize(
    ("harm", "what"),
    [
        (foreign, "notes.txt: not a DICOM file"),
        (truncated, "1.dcm: truncated pixel data"),
        (mixed, "1.dcm: another size than most slices"),
        (doubled, "20.dcm: duplicate position"),
        (thinned, "uneven spacing at 1 places: 3.dcm and 5.dcm are 6.00 mm apart"),
        (thinned, "1 file numbers between 1 and 8 are missing"),
    ],
)
def test_harm_to_a_usable_study_is_a_warning(tiny, harm, what):
    harm(tiny.images(tiny.uids[2]))
    assert any(severity == "warning" and text.startswith(what) for severity, text in found(tiny))
    assert all(severity == "warning" for severity, _ in found(tiny))


def test_labels_that_contradict_themselves(tiny):
    tiny.labels.loc[1, "patient_overall"] = 1
    tiny.write_tables()
    assert one(tiny) == ("warning", f"patient_overall contradicts C1 to C7 in 1 studies: {tiny.uids[1]}")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"StudyInstanceUID": "5.5"}, "1 boxes of the unknown study 5.5"),
        ({"slice_number": 99}, "1 boxes on slices that do not exist, the first on 99"),
        ({"x": 30.0}, "1 boxes empty or outside the image, the first on slice 3"),
        ({"height": 0.0}, "1 boxes empty or outside the image, the first on slice 3"),
    ],
)
def test_boxes(tiny, change, what):
    tiny.boxes = tiny.boxes.assign(**change)
    tiny.write_tables()
    severity, text = one(tiny)
    assert severity == "warning"
    assert what in text


def test_missing_boxes_and_strange_masks(tiny):
    (tiny.root / "train_bounding_boxes.csv").unlink()
    write_mask(tiny.mask(tiny.uids[1]), tiny.mask_labels(), shift_mm=400)
    tiny.mask(tiny.uids[2]).write_text("no mask")
    write_mask(tiny.mask("6.6"), tiny.mask_labels())
    texts = [text for _, text in found(tiny)]
    for part in (
        "only 0% of the mask's grid",
        "not a readable NIfTI",
        "the file is missing",
        "a mask of a study without",
    ):
        assert any(part in text for text in texts), part
    assert len(texts) == 4


def test_the_public_test_stub_is_no_error(tiny):
    write_study(tiny.root / "test_images" / "3.3", tiny.volume)
    rows = pd.DataFrame({"row_id": ["4.4_C1"], "StudyInstanceUID": ["4.4"], "prediction_type": ["C1"]})
    rows.to_csv(tiny.root / "test.csv", index=False)
    severity, what = one(tiny, "test")
    assert severity == "warning"
    assert "4.4" in what


def test_notes_on_what_is_unusual_and_dealt_with(tiny):
    shutil.rmtree(tiny.images(tiny.uids[2]))
    write_study(tiny.images(tiny.uids[2]), body_hu(40), first=2)
    assert notes(tiny) == {
        *(("short study", uid) for uid in tiny.uids if uid != tiny.uids[2]),
        ("numbers do not begin at 1", tiny.uids[2]),
        ("segmented study in unusual order", tiny.uids[1]),
    }


def test_the_same_pixels_under_another_uid_are_found_however_they_are_encoded(tiny):
    """Study 4 is study 1 again: unsigned with another intercept, in the other order, its labels different."""
    shutil.rmtree(tiny.images(tiny.uids[3]))
    write_study(tiny.images(tiny.uids[3]), tiny.volume, ascending=True)
    shift = 100 + 1024
    for file in tiny.images(tiny.uids[3]).iterdir():
        dataset = slice_dataset(tiny.volume[8 - int(file.stem)], 100 - 3 * (8 - int(file.stem)), int(file.stem))
        dataset.RescaleIntercept, dataset.PixelRepresentation = -shift, 0
        dataset.PixelData = (tiny.volume[8 - int(file.stem)].astype(np.int32) + shift).astype("<u2").tobytes()
        dataset.save_as(file)
    assert tiny.labels["C2"][0] != tiny.labels["C2"][3]
    what = f"the same pixels as {tiny.uids[3]} (train), and their labels differ"
    assert one(tiny) == ("warning", what)


def test_studies_that_both_splits_share_are_found(tiny):
    (tiny.root / "test.csv").write_text("row_id,StudyInstanceUID,prediction_type\n")
    for name, source in ((tiny.uids[0], tiny.uids[1]), ("9.9", tiny.uids[4])):
        shutil.copytree(tiny.images(source), tiny.root / "test_images" / name)
    texts = [text for _, text in found(tiny, "train", "test")]
    assert sorted(texts) == [
        "its UID is in train too",
        f"the same pixels as {tiny.uids[0]} (test)",
        "the same pixels as 9.9 (test)",
    ]
    assert found(tiny, "train") == found(tiny, "test") == []


def test_slices_that_do_not_decode_are_found_by_the_sample(tiny, monkeypatch):
    def fail(_file, _encoding, fast):
        assert not fast
        raise check_study.SliceError("does not decode")

    monkeypatch.setattr(check_study, "read_hu", fail)
    assert found(tiny) == [("warning", f"{n}.dcm: does not decode") for n in (3, 6, 3, 6, 3, 6)]


def crash_on_three(task):
    """Stands in for a decoder that ends the process on study ...3, and on study ...4 even without decoding."""
    if (task.folder.name.endswith("3") and task.decode) or task.folder.name.endswith("4"):
        os._exit(7)
    return CHECK_STUDY(task)


def test_a_study_that_ends_the_process_costs_itself_only(tiny, monkeypatch):
    monkeypatch.undo()  # here real processes have to die
    monkeypatch.setattr(check_study, "check_study", crash_on_three)
    checks = check_study.check_studies(tiny.root, "train", tiny.uids, 2)
    assert [check.uid for check in checks] == tiny.uids
    assert [check.uid for check in checks if check.facts is None] == [tiny.uids[3]]
    assert checks[3].findings[0].severity == "error"
    assert "exit status 7" in checks[3].findings[0].what
    assert checks[2].facts.pixels is None


def test_summary_counts_what_is_there(tiny):
    summary = check_dataset(tiny.config, ("train",)).summary["train"]
    assert (summary["studies"], summary["files"], summary["slices"]) == (6, 48, 48)
    assert summary["sizes"] == {"32 x 32": 6}
    assert summary["numbering"] == {"descending": 3, "ascending": 3}
    assert summary["transfer_syntaxes"] == {"Explicit VR Little Endian": 48}
    assert summary["spacing_mm"]["median"] == 3.0
    assert summary["extent_mm"]["max"] == 21.0
    assert summary["labels"]["positives"]["C2"] == 3
    assert summary["labels"]["fractured_levels"] == {"0": 3, "1": 3}
    assert summary["masks"] == {"studies": 1, "slices": 8, "numbering": {"ascending": 1}}
    boxes = {"boxes": 1, "studies": 1, "studies_with_gaps": 0, "studies_with_mask": 0}
    assert summary["boxes"] == boxes
    tiny.boxes = pd.concat([tiny.boxes, tiny.boxes.assign(slice_number=5)])
    tiny.write_tables()
    summary = check_dataset(tiny.config, ("train",)).summary["train"]
    assert summary["boxes"] == {**boxes, "boxes": 2, "studies_with_gaps": 1}


def test_the_report_shows_some_findings_of_a_kind_and_counts_the_rest(tiny):
    health = check_dataset(tiny.config, ("train",))
    health.findings += [Finding("warning", "odd", f"study{k}", f"what{k}", "mend it") for k in range(SHOWN + 7)]
    text = health_text(health, Path("cache/check.json"))
    assert "6 studies, 48 files, 48 slices" in text
    assert f"warning: odd ({SHOWN + 7})" in text
    assert f"study{SHOWN - 1}: what{SHOWN - 1}" in text
    assert f"study{SHOWN}:" not in text
    assert "and 7 more in check.json" in text
    assert text.count("mend it") == 1
    assert text.index("warning: odd") < text.index("note: short study")
    assert text.endswith(f"0 errors, {SHOWN + 7} warnings, 7 notes; all of them in cache/check.json")
    assert json.loads(json.dumps(health.to_json()))["findings"][0]["severity"] == "warning"
    assert health.fingerprint["hash"] in text
    assert health_text(Health(), Path("x.json")) == "0 errors, 0 warnings, 0 notes; all of them in x.json"


def test_a_nifti_study_that_does_not_decode_is_an_error_and_the_check_goes_on(tiny):
    shutil.rmtree(tiny.images(tiny.uids[0]))
    file = write_nifti(tiny.images(tiny.uids[0]).with_name(f"{tiny.uids[0]}.nii.gz"), tiny.volume)
    assert [f for f in check_dataset(tiny.config, ("train",)).findings if f.kind == "unusable study"] == []
    damage(file, 0.8)
    [finding] = [f for f in check_dataset(tiny.config, ("train",)).findings if f.kind == "unusable study"]
    assert tiny.uids[0] in finding.where


def test_a_box_that_is_no_number_is_found_and_the_check_goes_on(tiny):
    file = tiny.root / "train_bounding_boxes.csv"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], lines[1].rpartition(",")[0] + ",many", *lines[2:]]))
    health = check_dataset(tiny.config, ("train",))
    assert any("slice_number: must be a number" in finding.what for finding in health.findings)
    assert health.fingerprint is None
