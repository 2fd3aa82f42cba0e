import nibabel
import numpy as np
import pytest
from conftest import body_hu, write_mask, write_study

from cspine.data.dicom import load_study
from cspine.data.masks import header_overlap, level_presence, load_mask
from cspine.errors import UserError


def make_labels() -> np.ndarray:
    """Labels without any symmetry, so that every flip shows."""
    labels = np.zeros((8, 32, 32), np.uint8)
    labels[0:3, 10:20, 8:14] = 1
    labels[3:5, 20:25, 20:23] = 2
    labels[5, 3:9, 25:30] = 7
    labels[6:, 12:20, 10:15] = 8
    return labels


@pytest.mark.parametrize("ascending", [False, True])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_mask_lands_on_its_voxels_in_either_direction_of_numbering(tmp_path, ascending, suffix):
    study = load_study(write_study(tmp_path / "s", body_hu(), ascending))
    labels = make_labels()
    mask = load_mask(write_mask(tmp_path / f"m{suffix}", labels), study.geometry, study.volume.shape)
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, np.where(labels > 7, 0, labels))


def test_mask_of_another_grid_is_resampled(tmp_path):
    study = load_study(write_study(tmp_path / "s", body_hu()))
    labels = make_labels()
    file = write_mask(tmp_path / "m.nii", labels)
    image = nibabel.load(file)
    fine = np.asarray(image.dataobj).repeat(2, axis=0)
    to_ras = image.affine @ np.diag([0.5, 1, 1, 1])
    to_ras[:3, 3] -= image.affine[:3, 0] / 4
    nibabel.save(nibabel.Nifti1Image(fine.astype(np.float32), to_ras), file)
    mask = load_mask(file, study.geometry, study.volume.shape)
    assert np.array_equal(mask > 0, (labels > 0) & (labels < 8))


def test_mask_that_does_not_fit_is_refused_by_name(tmp_path):
    study = load_study(write_study(tmp_path / "s", body_hu()))
    file = write_mask(tmp_path / "m.nii", make_labels(), shift_mm=500)
    with pytest.raises(UserError, match=r"m\.nii: only 0% of the mask lies inside"):
        load_mask(file, study.geometry, study.volume.shape)
    assert header_overlap(file, study.geometry, study.volume.shape) == 0
    file = write_mask(file, make_labels())
    assert header_overlap(file, study.geometry, study.volume.shape) == 1


def test_unreadable_and_empty_masks_are_refused_by_name(tmp_path):
    study = load_study(write_study(tmp_path / "s", body_hu()))
    (tmp_path / "text.nii").write_text("no mask")
    cut = write_mask(tmp_path / "cut.nii.gz", make_labels())
    cut.write_bytes(cut.read_bytes()[:-40])
    half = write_mask(tmp_path / "half.nii", make_labels())
    half.write_bytes(half.read_bytes()[:2000])
    write_mask(tmp_path / "thorax.nii", np.full((8, 32, 32), 9, np.uint8))
    for name, reason in (
        ("text.nii", "not a readable"),
        ("cut.nii.gz", "not a readable"),
        ("half.nii", "not a readable"),
        ("gone.nii", "not a readable"),
        ("thorax.nii", "holds no label"),
    ):
        with pytest.raises(UserError, match=f"{name}: {reason}"):
            load_mask(tmp_path / name, study.geometry, study.volume.shape)


def test_presence_is_multilabel_and_without_specks():
    mask = np.zeros((3, 40, 40), np.uint8)
    mask[0, 5:10, 5:10] = 1
    mask[0, 20:26, 20:26] = 2
    mask[1, 5:9, 5:9] = 3  # 16 pixels
    mask[2, ::4, ::4] = 4  # 100 pixels, none beside another
    assert level_presence(mask).astype(int).tolist() == [[1, 1, 0, 0, 0, 0, 0], [0] * 7, [0] * 7]
    assert level_presence(mask, pixel_area_mm2=1.0)[1, 2]
