"""JPEG Lossless SV1 gives every stored integer back, by pydicom and by the project's reader."""

import numpy as np
import pydicom
import pytest
from conftest import body_hu, slice_dataset, write_study
from pydicom.uid import JPEGLosslessSV1

from cspine.benchmarks.recompress import lossless_copy
from cspine.data.dicom import load_study
from cspine.data.lossless import compress_lossless
from cspine.errors import UserError


@pytest.mark.parametrize("kind", [np.int16, np.uint16])
def test_every_integer_comes_back(tmp_path, kind):
    limits = np.iinfo(kind)
    stored = np.random.default_rng(0).integers(limits.min, limits.max, (20, 27), endpoint=True).astype(kind)
    stored[0, :3] = limits.min, limits.max, 0
    dataset = slice_dataset(np.zeros(stored.shape), 0.0, 1, PixelRepresentation=int(kind is np.int16))
    compress_lossless(dataset, stored)
    dataset.save_as(tmp_path / "1.dcm")
    read = pydicom.dcmread(tmp_path / "1.dcm")
    assert read.file_meta.TransferSyntaxUID == JPEGLosslessSV1
    np.testing.assert_array_equal(read.pixel_array, stored)


def test_a_copied_study_is_the_study(tmp_path):
    folder = write_study(tmp_path / "a", body_hu())
    copy = lossless_copy(folder, tmp_path / "b")
    ours, theirs = load_study(copy), load_study(folder)
    np.testing.assert_array_equal(ours.volume, theirs.volume)
    assert ours.geometry.file_numbers.tolist() == theirs.geometry.file_numbers.tolist()
    assert {pydicom.dcmread(file).file_meta.TransferSyntaxUID for file in copy.iterdir()} == {JPEGLosslessSV1}


def test_other_files_are_refused_by_name(tmp_path):
    folder = write_study(tmp_path / "a", body_hu())
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes\.txt: not a CT slice"):
        lossless_copy(folder, tmp_path / "b")
