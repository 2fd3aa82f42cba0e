"""Slice by slice gives what the whole volume gives, whatever is left out on the way."""

from dataclasses import replace

import numpy as np
import pydicom
import pytest
from conftest import body_hu, slice_dataset, write_study
from pydicom.uid import JPEG2000Lossless

from cspine.config import Preprocess
from cspine.data.dicom import load_study
from cspine.data.preprocess import preprocess, sample_indices
from cspine.data.stream import prepare_volumes
from cspine.data.study import StudyError

PLAIN = Preprocess(field_mm=60, size_px=24, windows=("wide", "bone"))
SETTINGS = (PLAIN, replace(PLAIN, mask="kmeans", kmeans_classes=2), replace(PLAIN, denoise="region_mean"))


def corrupt(folder, number: int) -> None:
    """A slice whose header is sound and whose pixels do not decode."""
    dataset = slice_dataset(body_hu()[1], 100 - 3 * (number - 1), number)
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51 no code stream"])
    dataset["PixelData"].VR = "OB"
    dataset.save_as(folder / f"{number}.dcm")


@pytest.mark.parametrize("slices", [8, 150])
@pytest.mark.parametrize("broken", [(), (1, 4)])
def test_it_is_what_the_whole_volume_gives(tmp_path, slices, broken):
    write_study(tmp_path, body_hu(slices))
    for number in broken:
        corrupt(tmp_path, number)
    study, prepared = load_study(tmp_path), prepare_volumes(tmp_path, SETTINGS)
    assert [name for name, _ in prepared.skipped] == [name for name, _ in study.skipped]
    assert len(prepared.skipped) == len(broken)
    assert prepared.slice_shape == (32, 32)
    assert prepared.geometry.to_json() == study.geometry.to_json()
    for settings in SETTINGS:
        made = prepared.volumes[settings]
        assert made.shape == (slices - len(broken), 2, 24, 24)
        if not broken:
            assert np.array_equal(made, preprocess(study.volume, study.geometry, settings))


def test_a_leaning_stack_is_straightened(tmp_path):
    volume = body_hu(20)
    for index, hu in enumerate(volume):
        slice_dataset(hu, -3 * index, index, ImagePositionPatient=[-30, -40 + index, -3 * index]).save_as(
            tmp_path / f"{index}.dcm"
        )
    study = load_study(tmp_path)
    assert study.geometry.shifts_px is not None
    assert np.array_equal(
        prepare_volumes(tmp_path, [PLAIN]).volumes[PLAIN], preprocess(study.volume, study.geometry, PLAIN)
    )


def test_a_study_none_of_whose_slices_decodes_says_so(tmp_path):
    write_study(tmp_path, body_hu(4))
    for number in range(1, 5):
        corrupt(tmp_path, number)
    with pytest.raises(StudyError, match="no slice of a sample") as caught:
        prepare_volumes(tmp_path, [PLAIN])
    assert len(caught.value.skipped) == 4


@pytest.mark.parametrize("depth", [1, 3, 47, 48, 95, 96, 314, 1082])
def test_a_sample_is_small_and_is_its_own_sample(depth):
    sample = sample_indices(depth)
    assert min(depth, 48) <= len(sample) <= 95
    assert sample_indices(len(sample)).step == 1
