"""The files of the phantom: transfer syntaxes, numbers and padding, masks as people draw them, the public test stub."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLosslessSV1
from scipy import ndimage

from cspine.anatomy import LEVELS
from cspine.data.dicom import load_study
from cspine.data.levels import clean_levels
from cspine.phantom.annotations import GAP_SHARE, find_boxes, soiled
from cspine.phantom.canvas import Grid
from cspine.phantom.dicom_files import PADDING_HU, write_series
from cspine.phantom.fractures import Fracture
from cspine.phantom.labels import StudyPlan, plan_study
from cspine.phantom.writer import STUB_ROWS, Order, make_dataset

GRID = Grid((5, 40, 47), 1.0, 0.5, (-10.0, -20.0, 5.0))
PLAN = plan_study(0, "train", 0)
SYNTAXES = {"implicit": ImplicitVRLittleEndian, "explicit": ExplicitVRLittleEndian, "lossless": JPEGLosslessSV1}


def series(folder: Path, plan: StudyPlan) -> tuple[np.ndarray, list[pydicom.Dataset]]:
    hu = np.random.default_rng(0).integers(-1000, 2000, GRID.shape).astype(np.int16)
    write_series(folder, hu, GRID, plan, 1.0)
    headers = [pydicom.dcmread(file) for file in folder.glob("*.dcm")]
    return hu, sorted(headers, key=lambda header: -header.ImagePositionPatient[2])


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(("signed", "intercept_hu"), [(False, -1024), (True, -1024), (True, 0), (True, -1000)])
def test_every_way_of_storing_gives_the_same_hu(tmp_path: Path, syntax: str, signed: bool, intercept_hu: int) -> None:
    plan = replace(PLAN, syntax=syntax, signed=signed, intercept_hu=intercept_hu, padded=False)
    hu, headers = series(tmp_path / "s", plan)
    assert {header.file_meta.TransferSyntaxUID for header in headers} == {SYNTAXES[syntax]}
    assert {(header.PixelRepresentation, int(header.RescaleIntercept)) for header in headers} == {
        (int(signed), intercept_hu)
    }
    np.testing.assert_array_equal(load_study(tmp_path / "s").volume, hu)


def test_padding_lies_outside_the_circle_and_is_read_as_air(tmp_path: Path) -> None:
    hu, headers = series(tmp_path / "s", replace(PLAN, syntax="explicit", signed=True, padded=True))
    stored = headers[0].pixel_array + float(headers[0].RescaleIntercept)
    assert stored[0, 0] == PADDING_HU
    assert stored[20, 23] == hu[0, 20, 23]
    assert 0.15 < (stored == PADDING_HU).mean() < 0.5
    assert load_study(tmp_path / "s").volume.min() >= -1024


def test_shares_of_the_ways_of_storing_are_independent_of_the_label() -> None:
    plans = [plan_study(0, "train", k) for k in range(2000)]
    for group in (plans, [plan for plan in plans if plan.levels]):
        syntaxes = pd.Series([plan.syntax for plan in group]).value_counts(normalize=True)
        assert syntaxes["lossless"] == pytest.approx(0.2, abs=0.03)
        assert syntaxes["implicit"] == pytest.approx(0.2, abs=0.03)
        assert np.mean([plan.padded for plan in group]) == pytest.approx(0.15, abs=0.03)
        assert np.mean([plan.signed for plan in group]) == pytest.approx(0.6, abs=0.06)
        assert np.mean([plan.intercept_hu != -1024 for plan in group]) == pytest.approx(0.06, abs=0.02)
    assert all(plan.signed for plan in plans if plan.padded or plan.intercept_hu != -1024)


def stack_of_bones() -> np.ndarray:
    mask = np.zeros((80, 60, 60), np.uint8)
    for level in range(10):
        mask[8 * level : 8 * level + 7, 20:40, 22:38] = level + 1
    return mask


def test_masks_are_soiled_and_cleaned_again() -> None:
    clean, grid = stack_of_bones(), Grid((80, 60, 60), 1.0, 0.5, (0.0, 0.0, 80.0))
    specks, holes = [], []
    for seed in range(20):
        mask = soiled(clean, grid, np.random.default_rng(seed))
        specks.append(ndimage.label((mask > 0) & (clean == 0))[1])
        holes.append(int(((mask == 0) & (clean > 0)).sum()))
        assert set(np.unique(mask)) == set(range(11)), "the T levels stay in the file"
        mask[mask > len(LEVELS)] = 0
        expected = np.where(clean <= len(LEVELS), clean, 0)
        again = clean_levels(mask, (1.0, 0.5, 0.5))
        # A speck that touches its own level becomes part of it; nothing else is left.
        assert (again != expected).sum() <= 8
    assert np.mean(specks) > 1
    assert 0 < sum(holes) < 60


def test_boxes_are_loose_by_millimetres_and_stay_on_the_slice() -> None:
    truth = np.zeros((200, 50, 50), np.uint8)
    truth[:, 0:6, 20:30] = 1
    fracture = Fracture(1, 4, "lamina", 1.0, 0.0, ())
    gapped = 0
    for index in range(40):
        plan = plan_study(0, "train", index)
        boxes = find_boxes(truth, [fracture], np.arange(1, 201), plan, 0.5)
        sides = np.array([[box["x"], box["y"], box["width"], box["height"]] for box in boxes])
        assert (sides[:, 1] == 0).all(), "clipped at the upper edge"
        assert ((20 - sides[:, 0] >= 1) & (20 - sides[:, 0] <= 6)).all()
        assert (sides[:, 0] + sides[:, 2] >= 31).all()
        assert len(set(sides[:, 0])) > 3, "no two slices are boxed alike"
        gapped += len(boxes) < 200
    assert gapped / 40 == pytest.approx(GAP_SHARE, abs=0.25)


def test_the_public_test_stub_asks_for_studies_that_are_not_there(tmp_path: Path) -> None:
    order = Order(studies=0, test_studies=2, seed=0, matrix=32, spacing_mm=6.0, kaggle_stub=True)
    make_dataset(tmp_path / "p", order)
    rows = pd.read_csv(tmp_path / "p" / "test.csv", dtype=str)
    there = {folder.name for folder in (tmp_path / "p" / "test_images").iterdir()}
    assert len(rows) == STUB_ROWS
    assert set(rows["prediction_type"]) == {"C1"}
    assert not set(rows["StudyInstanceUID"]) & there
    assert list(pd.read_csv(tmp_path / "p" / "sample_submission.csv")["row_id"]) == list(rows["row_id"])
    assert set(pd.read_csv(tmp_path / "p" / "test_answers.csv", dtype=str)["StudyInstanceUID"]) == there
