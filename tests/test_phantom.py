"""The phantom: the competition's layout, labels that agree with the voxels, and independence of how it was run."""

import filecmp
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pydicom
import pytest

from cspine.anatomy import LEVELS, OVERALL, TARGETS
from cspine.data.levels import clean_levels
from cspine.errors import UserError
from cspine.phantom.dicom_files import file_numbers, write_mask, write_series
from cspine.phantom.labels import draw_levels, plan_study
from cspine.phantom.writer import MARKER, Order, label_row, make_dataset, render_study
from cspine.tables import STUDY, read_boxes, read_labels, read_test_rows

TINY = {"seed": 17, "matrix": 96, "spacing_mm": 2.0, "mask_share": 1.0, "box_share": 1.0}
ORDER = Order(studies=5, test_studies=1, **TINY)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantom") / "data"
    make_dataset(root, ORDER)
    return root


def read_series(folder: Path) -> tuple[list[pydicom.Dataset], np.ndarray]:
    """Headers and HU (z, y, x), cranial to caudal."""
    slices = [pydicom.dcmread(file) for file in folder.glob("*.dcm")]
    slices.sort(key=lambda header: -header.ImagePositionPatient[2])
    volume = np.stack([s.pixel_array * float(s.RescaleSlope) + float(s.RescaleIntercept) for s in slices])
    return slices, volume


def mask_on_stack(file: Path, slices: list[pydicom.Dataset]) -> np.ndarray:
    """The mask's label at every voxel of the stack, through the affine alone."""
    image = nibabel.load(file)
    rows, columns = slices[0].Rows, slices[0].Columns
    k, j, i = np.meshgrid(np.arange(len(slices)), np.arange(rows), np.arange(columns), indexing="ij")
    x0, y0, _ = map(float, slices[0].ImagePositionPatient)
    z = np.array([float(s.ImagePositionPatient[2]) for s in slices])
    step = float(slices[0].PixelSpacing[0])
    ras = np.stack([-(x0 + i * step), -(y0 + j * step), z[k], np.ones(k.shape)], -1)
    exact = (ras @ np.linalg.inv(image.affine).T)[..., :3]
    indices = np.rint(exact).astype(int)
    assert np.abs(exact - indices).max() < 0.01
    return np.asarray(image.dataobj)[tuple(np.moveaxis(indices, -1, 0))]


def test_layout(dataset: Path) -> None:
    labels = read_labels(dataset / "train.csv")
    assert list(labels.columns) == [STUDY, *TARGETS]
    assert len(labels) == ORDER.studies
    assert set(labels[STUDY]) == {folder.name for folder in (dataset / "train_images").iterdir()}
    answers = read_labels(dataset / "test_answers.csv")
    rows = read_test_rows(dataset / "test.csv")
    assert set(rows["row_id"]) == {f"{uid}_{target}" for uid in answers[STUDY] for target in TARGETS}
    sample = pd.read_csv(dataset / "sample_submission.csv")
    assert list(sample["row_id"]) == list(rows["row_id"])
    assert (sample["fractured"] == 0.5).all()
    assert {path.name for path in dataset.iterdir()} == {
        "train.csv",
        "train_bounding_boxes.csv",
        "train_images",
        "segmentations",
        "test.csv",
        "sample_submission.csv",
        "test_images",
        "test_answers.csv",
        "fractures.csv",
        MARKER,
    }


def test_labels_agree_with_fractures(dataset: Path) -> None:
    labels = pd.concat([read_labels(dataset / name) for name in ("train.csv", "test_answers.csv")])
    fractures = pd.read_csv(dataset / "fractures.csv", dtype={STUDY: str})
    assert (fractures["n_slices"] > 0).all()
    for _, row in labels.iterrows():
        broken = set(fractures.loc[fractures[STUDY] == row[STUDY], "level"])
        assert broken == {level for level in LEVELS if row[level]}
        assert row[OVERALL] == int(bool(broken))


def test_series_are_valid_ct(dataset: Path) -> None:
    for folder in (dataset / "train_images").iterdir():
        slices, volume = read_series(folder)
        z = [float(s.ImagePositionPatient[2]) for s in slices]
        np.testing.assert_allclose(np.diff(z), -ORDER.spacing_mm, atol=1e-5)
        numbers = {int(s.InstanceNumber) for s in slices}
        assert numbers == {int(file.stem) for file in folder.glob("*.dcm")}
        assert len(numbers) == max(numbers) - min(numbers) + 1
        assert len({s.SOPInstanceUID for s in slices}) == len(slices)
        assert {s.StudyInstanceUID for s in slices} == {folder.name}
        assert all(float(s.SliceThickness) >= ORDER.spacing_mm for s in slices)
        padding = volume[volume < -1024]
        assert len(np.unique(padding)) <= 1
        assert volume.max() <= 3071
        assert (volume < -900).mean() > 0.2


def test_masks_lie_on_the_bone_in_order(dataset: Path) -> None:
    files = list((dataset / "segmentations").glob("*.nii"))
    assert len(files) == ORDER.studies
    for file in files:
        slices, volume = read_series(dataset / "train_images" / file.stem)
        pixel_mm = float(slices[0].PixelSpacing[0])
        mask = clean_levels(mask_on_stack(file, slices), (ORDER.spacing_mm, pixel_mm, pixel_mm))
        bone = (mask >= 1) & (mask <= 7)
        # Two millimetres a voxel blur the cortex away; at 1 mm the share is 0.96.
        assert (volume[bone] > 200).mean() > 0.7
        # A mirrored or shifted mask loses much of that; the shift here is two voxels.
        assert (volume[np.roll(bone, 2, 1)] > 200).mean() < (volume[bone] > 200).mean() - 0.2
        centres = [np.nonzero(mask == level)[0].mean() for level in range(1, 8)]
        assert centres == sorted(centres)
        assert not set(np.unique(mask[[0, -1]])) & set(range(1, 8)), "a cervical level is cut off"


def test_boxes_surround_the_fracture(dataset: Path) -> None:
    boxes = read_boxes(dataset / "train_bounding_boxes.csv")
    plans = {plan.uid: plan for plan in ORDER.plans() if plan.levels and plan.split == "train"}
    assert set(boxes[STUDY]) == set(plans)
    assert not boxes.duplicated([STUDY, "slice_number"]).any()
    for uid, group in boxes.groupby(STUDY):
        plan = plans[uid]
        canvas, fractures, _ = render_study(plan, ORDER.matrix, ORDER.spacing_mm)
        numbers = file_numbers(plan, len(canvas.truth)).tolist()
        levels = {f.number: f.level for f in fractures}
        for box in group.itertuples():
            on_slice = canvas.truth[numbers.index(box.slice_number)]
            inside = np.zeros(on_slice.shape, bool)
            inside[box.y : box.y + box.height, box.x : box.x + box.width] = True
            assert any(inside[np.isin(on_slice, ids)].all() for ids in _ids_by_level(levels, on_slice))


def _ids_by_level(levels: dict[int, int], on_slice: np.ndarray) -> list[list[int]]:
    there = [number for number in levels if (on_slice == number).any()]
    return [[n for n in there if levels[n] == level] for level in {levels[n] for n in there}]


def test_truth_is_bone_of_its_level_that_lost_density() -> None:
    plan = next(p for k in range(60) if 5 in (p := plan_study(0, "train", k)).levels)
    canvas, fractures, _ = render_study(plan, 128, 2.0)
    for fracture in fractures:
        assert set(np.unique(canvas.label[canvas.truth == fracture.number])) == {fracture.level + 1}


def test_a_fracture_changes_nothing_elsewhere() -> None:
    plan = next(p for k in range(60) if len((p := plan_study(0, "train", k)).levels) == 1)
    broken, _, _ = render_study(plan, 96, 2.5)
    sound, _, _ = render_study(replace(plan, levels=()), 96, 2.5)
    assert broken.grid == sound.grid
    changed = broken.hu != sound.hu
    assert 0 < changed.sum() < 0.01 * changed.size
    assert changed[broken.truth > 0].mean() > 0.9


def test_a_study_depends_neither_on_the_number_of_studies_nor_on_processes(dataset: Path, tmp_path: Path) -> None:
    fewer = Order(studies=3, test_studies=0, **TINY)
    storages = [plan.storage for plan in fewer.plans()]
    assert {storage.syntax for storage in storages} == {"jpeg_lossless", "explicit", "implicit"}
    assert any(storage.padding for storage in storages)
    make_dataset(tmp_path / "again", fewer, processes=2)
    for plan in fewer.plans():
        folder = tmp_path / "again" / "train_images" / plan.uid
        names = [file.name for file in folder.iterdir()]
        same, _, _ = filecmp.cmpfiles(folder, dataset / "train_images" / plan.uid, names, shallow=False)
        assert sorted(same) == sorted(names)
        mask = f"segmentations/{plan.uid}.nii"
        assert filecmp.cmp(tmp_path / "again" / mask, dataset / mask, shallow=False)
    part = pd.read_csv(tmp_path / "again" / "train.csv")
    pd.testing.assert_frame_equal(part, pd.read_csv(dataset / "train.csv").head(3))


def test_a_finished_set_is_left_alone_and_an_interrupted_one_completed(tmp_path: Path) -> None:
    order = Order(studies=2, test_studies=0, seed=1, matrix=32, spacing_mm=5.0)
    make_dataset(tmp_path / "whole", order)
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "whole").rglob("*")}
    make_dataset(tmp_path / "whole", order)
    assert times == {file: file.stat().st_mtime_ns for file in (tmp_path / "whole").rglob("*")}
    # A run killed within a study leaves a folder with a temporary name and the marker.
    lost = order.plans()[1]
    make_dataset(tmp_path / "part", order)
    (tmp_path / "part" / "train_images" / lost.uid).rename(tmp_path / "part" / "train_images" / f".{lost.uid}")
    make_dataset(tmp_path / "part", order)
    for file in (tmp_path / "whole").rglob("*.*"):
        if file.is_file():
            assert filecmp.cmp(file, tmp_path / "part" / file.relative_to(tmp_path / "whole"), shallow=False)
    assert not list((tmp_path / "part" / "train_images").glob(".*"))


def test_folders_of_others_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    order = Order(studies=1, test_studies=0, seed=0, matrix=32, spacing_mm=5.0)
    with pytest.raises(UserError, match="not empty"):
        make_dataset(tmp_path, order)
    make_dataset(tmp_path / "phantom", order)
    with pytest.raises(UserError, match="seed: 0 -> 1"):
        make_dataset(tmp_path / "phantom", Order(studies=1, test_studies=0, seed=1, matrix=32, spacing_mm=5.0))


def test_uids_differ_within_and_between_seeds() -> None:
    uids = [plan_study(seed, split, k).uid for seed in (0, 1) for split in ("train", "test") for k in range(1000)]
    assert len(set(uids)) == len(uids)
    assert all(uid.startswith("1.2.826.0.1.3680043.") for uid in uids)


def test_labels_follow_the_competition() -> None:
    plans = [plan_study(0, "train", k) for k in range(2000)]
    positive = np.array([bool(plan.levels) for plan in plans])
    assert positive.mean() == pytest.approx(961 / 2019, abs=0.005)
    windows = np.convolve(positive, np.ones(10), "valid")
    assert windows.min() >= 4
    assert windows.max() <= 6
    rng = np.random.default_rng(0)
    drawn = [draw_levels(rng) for _ in range(20000)]
    shares = [np.mean([level in levels for levels in drawn]) for level in range(7)]
    np.testing.assert_allclose(shares, np.array([146, 285, 73, 108, 162, 277, 393]) / 961, atol=0.012)
    counts = np.bincount([len(levels) for levels in drawn], minlength=7)[1:] / len(drawn)
    np.testing.assert_allclose(counts, np.array([623, 239, 64, 26, 7, 2]) / 961, atol=0.012)
    assert label_row(plans[0])[OVERALL] == int(bool(plans[0].levels))


def test_shares_of_masks_numbering_and_direction() -> None:
    plans = [plan_study(0, "train", k, mask_share=0.3, box_share=0.25) for k in range(1000)]
    positive = [plan for plan in plans if plan.levels]
    assert np.mean([plan.has_mask for plan in plans]) == pytest.approx(0.3, abs=0.02)
    assert np.mean([plan.has_boxes for plan in positive]) == pytest.approx(0.25, abs=0.05)
    assert not any(plan.has_boxes for plan in plans if not plan.levels)
    for shares in (plans, positive):
        assert np.mean([plan.ascending for plan in shares]) == pytest.approx(0.1, abs=0.03)
        assert np.mean([plan.first_number == 2 for plan in shares]) == pytest.approx(0.1, abs=0.03)
        assert np.mean([plan.has_mask for plan in shares]) == pytest.approx(0.3, abs=0.05)


def test_ascending_studies_count_upwards_in_z_and_their_masks_still_fit(tmp_path: Path) -> None:
    plan = next(p for k in range(60) if (p := plan_study(0, "train", k)).ascending)
    canvas, _, _ = render_study(plan, 64, 3.0)
    write_series(tmp_path / "series", canvas.hu.astype(np.int16), canvas.grid, plan, 3.0)
    write_mask(tmp_path / "mask.nii", canvas.label, canvas.grid)
    slices, volume = read_series(tmp_path / "series")
    assert int(slices[0].InstanceNumber) > int(slices[-1].InstanceNumber)
    np.testing.assert_array_equal(volume, canvas.hu.astype(np.int16))
    np.testing.assert_array_equal(mask_on_stack(tmp_path / "mask.nii", slices), canvas.label)
