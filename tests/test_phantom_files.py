"""The phantom's files: how pixels are stored, what annotators add, and the stub of a test set."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from scipy import ndimage

from cspine.data.dicom import load_study
from cspine.data.levels import SPECK_MM3, clean_levels
from cspine.data.masks import load_mask
from cspine.phantom.annotation import SKIPPING_SHARE, find_boxes, flawed_mask
from cspine.phantom.canvas import Canvas, Grid
from cspine.phantom.dicom_files import SYNTAXES, file_numbers, write_mask, write_series
from cspine.phantom.fractures import Fracture
from cspine.phantom.labels import PADDING_SHARES, SYNTAX_SHARES, Storage, plan_study
from cspine.phantom.writer import Order, make_dataset, render_study
from cspine.tables import STUDY, read_labels, read_test_rows

GRID = Grid((40, 60, 67), 1.0, 0.8, (-20.0, -30.0, 50.0))
PLAN = plan_study(0, "train", 0)


def vertebrae() -> np.ndarray:
    """Labels 1 to 9 as blocks of 3 slices with a canal, on GRID."""
    label = np.zeros(GRID.shape, np.uint8)
    for level in range(1, 10):
        label[4 * level - 2 : 4 * level + 1, 15:45, 15:50] = level
    label[:, 26:34, 28:36] = 0
    return label


def noise_hu() -> np.ndarray:
    hu = np.random.default_rng(0).integers(-200, 300, GRID.shape).astype(np.int16)
    hu[:, :10], hu[:, -1, -1], hu[:, 30, 30] = -1000, -1024, 3071
    return hu


def test_storage_has_the_shares_asked_for_whatever_the_label() -> None:
    plans = [plan_study(0, "train", k) for k in range(2000)]
    for chosen in (plans, [p for p in plans if p.levels], [p for p in plans if not p.levels]):
        storages = [plan.storage for plan in chosen]
        for syntax, share in SYNTAX_SHARES.items():
            assert np.mean([s.syntax == syntax for s in storages]) == pytest.approx(share, abs=0.03)
        for padding, share in PADDING_SHARES.items():
            assert np.mean([s.padding == padding for s in storages]) == pytest.approx(share, abs=0.03)
        assert np.mean([s.intercept_hu == -1024 for s in storages]) == pytest.approx(0.88, abs=0.03)
        assert 0.01 < np.mean([s.inverted for s in storages]) < 0.05
    assert {s.storage.signed for s in plans} == {True, False}
    assert all(p.storage.signed for p in plans if p.storage.padding or p.storage.intercept_hu != -1024)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize(
    ("signed", "intercept_hu", "padding"),
    [(False, -1024, None), (True, -1024, -2000), (True, -1000, -1500), (True, 0, None), (True, 0, -2000)],
)
def test_every_storage_is_read_back(
    tmp_path: Path, syntax: str, signed: bool, intercept_hu: int, padding: int | None, inverted: bool
) -> None:
    plan = replace(PLAN, storage=Storage(syntax, signed, intercept_hu, padding, inverted))
    hu = noise_hu()
    write_series(tmp_path / "s", hu[:4], replace(GRID, shape=(4, *GRID.shape[1:])), plan, 1.0)
    study = load_study(tmp_path / "s")
    y, x = np.ogrid[: GRID.shape[1], : GRID.shape[2]]
    inside = (y - 29.5) ** 2 + (x - 33) ** 2 <= 30**2
    expected = np.where(inside, hu[:4], -1024) if padding is not None else hu[:4]
    np.testing.assert_array_equal(study.volume, expected)
    header = pydicom.dcmread(next((tmp_path / "s").iterdir()))
    assert header.file_meta.TransferSyntaxUID == SYNTAXES[syntax]
    assert header.pixel_array[0, 0] == (padding if padding is not None else hu[0, 0, 0] - intercept_hu)
    assert header.get("PixelPaddingValue") == (-2000 if padding == -2000 else None)


def test_equal_pixels_give_equal_files(tmp_path: Path) -> None:
    plan = replace(PLAN, storage=Storage("jpeg_lossless", True, -1024, -2000, False))
    for name in ("a", "b"):
        write_series(tmp_path / name, noise_hu()[:3], replace(GRID, shape=(3, *GRID.shape[1:])), plan, 1.0)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_flaws_of_masks_are_specks_and_cavities_that_cleaning_undoes() -> None:
    label = vertebrae()
    added = removed = 0
    for seed in range(12):
        mask = flawed_mask(label, GRID, np.random.default_rng(seed))
        np.testing.assert_array_equal(mask, flawed_mask(label, GRID, np.random.default_rng(seed)))
        specks, cavities = (label == 0) & (mask > 0), (label > 0) & (mask == 0)
        assert ((mask == label) | specks | cavities).all()
        pieces, count = ndimage.label(specks, np.ones((3, 3, 3)))
        assert (np.bincount(pieces.ravel())[1:] * 0.8 * 0.8 < SPECK_MM3).all()
        added, removed = added + count, removed + cavities.any()
        voxel_mm = (1.0, 0.8, 0.8)
        cervical = np.where(mask > 7, 0, mask)
        np.testing.assert_array_equal(clean_levels(cervical, voxel_mm), np.where(label > 7, 0, label))
    assert added >= 24
    assert removed >= 6


def test_thoracic_labels_are_written_and_read_as_background(tmp_path: Path) -> None:
    write_series(tmp_path / "s", noise_hu(), GRID, PLAN, 1.0)
    write_mask(tmp_path / "m.nii", vertebrae(), GRID)
    study = load_study(tmp_path / "s")
    mask = load_mask(tmp_path / "m.nii", study.geometry, study.volume.shape)
    np.testing.assert_array_equal(mask, np.where(vertebrae() > 7, 0, vertebrae()))
    canvas, _, _ = render_study(PLAN, 48, 4.0)
    assert set(np.unique(canvas.label)) >= set(range(9))


def broken_canvas() -> tuple[Canvas, list[Fracture]]:
    """A fracture of C2 on slices 10 to 24, and a smaller one of C5 on slices 20 to 30."""
    canvas = Canvas(GRID, np.zeros((1, 1, 1), np.float32))
    canvas.truth[10:25, 20:30, 2:9] = 1
    canvas.truth[20:31, 40:44, 30:33] = 2
    kinds = [Fracture(number, level, "dens", 1.0, 0.0, ()) for number, level in ((1, 1), (2, 4))]
    return canvas, kinds


def test_boxes_are_loose_and_lie_inside_the_slice() -> None:
    canvas, fractures = broken_canvas()
    numbers = np.arange(100, 140)
    gaps = 0
    for seed in range(150):
        boxes = pd.DataFrame(find_boxes(canvas, fractures, numbers, np.random.default_rng(seed)))
        assert boxes["slice_number"].is_unique
        assert boxes["slice_number"].between(110, 130).all()
        gaps += boxes["slice_number"].max() - boxes["slice_number"].min() + 1 > len(boxes)
        large = boxes[boxes["slice_number"] <= 124]
        assert (large["x"] <= 2).all()
        assert (large["x"] + large["width"] >= 9).all()
        assert (large["y"] < 20).all()
        assert (large["y"] + large["height"] > 30).all()
        assert (boxes[["x", "y"]] >= 0).all(axis=None)
        assert (boxes["x"] + boxes["width"] <= GRID.shape[2]).all()
        assert (boxes["y"] + boxes["height"] <= GRID.shape[1]).all()
    assert gaps / 150 == pytest.approx(SKIPPING_SHARE, abs=0.08)


def test_the_number_of_a_box_is_its_file(tmp_path: Path) -> None:
    plan = replace(PLAN, ascending=True, first_number=2)
    canvas, fractures = broken_canvas()
    numbers = file_numbers(plan, GRID.shape[0])
    boxes = find_boxes(canvas, fractures, numbers, np.random.default_rng(0))
    write_series(tmp_path / "s", noise_hu(), GRID, plan, 1.0)
    z_mm = [
        float(pydicom.dcmread(tmp_path / "s" / f"{box['slice_number']}.dcm").ImagePositionPatient[2]) for box in boxes
    ]
    assert max(z_mm) == 50.0 - 10
    assert min(z_mm) == 50.0 - 30


def test_a_stub_asks_for_three_studies_that_are_not_there(tmp_path: Path) -> None:
    order = Order(studies=0, test_studies=1, seed=0, matrix=32, spacing_mm=5.0, kaggle_stub=True)
    make_dataset(tmp_path / "stub", order)
    rows = read_test_rows(tmp_path / "stub" / "test.csv")
    on_disk = {folder.name for folder in (tmp_path / "stub" / "test_images").iterdir()}
    assert len(on_disk) == 1
    assert set(read_labels(tmp_path / "stub" / "test_answers.csv")[STUDY]) == on_disk
    assert rows["row_id"].tolist() == [f"{uid}_C1" for uid in rows[STUDY]]
    assert len(set(rows[STUDY])) == 3
    assert not set(rows[STUDY]) & on_disk
    sample = pd.read_csv(tmp_path / "stub" / "sample_submission.csv")
    assert sample["row_id"].tolist() == rows["row_id"].tolist()
