import dataclasses

import pandas as pd
import pytest
from conftest import body_hu, damage, slice_dataset, write_mask, write_study

from cspine.config import Data
from cspine.data.check import check_dataset


def found(tiny, split="train"):
    """(severity, what) of all findings."""
    findings = check_dataset(tiny.config, split)
    assert all(finding.where and finding.remedy for finding in findings)
    return [(finding.severity, finding.what) for finding in findings]


def one(tiny, split="train"):
    findings = found(tiny, split)
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
