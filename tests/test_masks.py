import nibabel
import numpy as np
import pytest
from conftest import body_hu, write_mask, write_study

from cspine.data.dicom import load_study
from cspine.data.masks import header_overlap, load_mask
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


def test_a_mask_is_mapped_first_and_cleaned_then(tmp_path):
    """A speck of C1 at the far corner and a hole in C1; the axes of the file are flipped and exchanged."""
    study = load_study(write_study(tmp_path / "s", body_hu(), ascending=True))
    clean = make_labels()
    dirty = clean.copy()
    dirty[7, 31, 0] = 1
    dirty[1, 14, 10] = 0
    mask = load_mask(write_mask(tmp_path / "m.nii", dirty), study.geometry, study.volume.shape)
    assert np.array_equal(mask, np.where(clean > 7, 0, clean))


def test_a_mask_that_runs_oblique_to_its_ct_is_resampled_voxel_by_voxel(tmp_path):
    """Turned by 30 degrees in the plane, every index depends on both axes."""
    study = load_study(write_study(tmp_path / "s", body_hu()))
    labels = np.zeros((8, 32, 32), np.uint8)
    labels[1:7, 8:24, 10:20] = 4
    image = nibabel.load(write_mask(tmp_path / "straight.nii", labels))
    turn, angle = np.eye(4), np.deg2rad(30)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]  # alike in RAS and LPS
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), turn @ image.affine), tmp_path / "turned.nii")
    mask = load_mask(tmp_path / "turned.nii", study.geometry, study.volume.shape)
    found = study.geometry.voxel_to_lps(*np.argwhere(mask == 4).mean(axis=0))
    assert np.allclose(found, turn[:3, :3] @ study.geometry.voxel_to_lps(3.5, 15.5, 14.5), atol=0.3)
    assert abs(np.count_nonzero(mask) / np.count_nonzero(labels) - 1) < 0.05


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_beyond_the_grid_of_the_mask_there_is_no_label(tmp_path, axis):
    """The label fills the whole mask, which is moved by two voxels: no slice, row or column is repeated."""
    study = load_study(write_study(tmp_path / "s", body_hu()))
    image = nibabel.load(write_mask(tmp_path / "full.nii", np.full((8, 32, 32), 3, np.uint8)))
    to_ras = image.affine.copy()
    to_ras[axis, 3] += 2 * abs(to_ras[axis, axis])
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), to_ras), tmp_path / "moved.nii")
    mask = load_mask(tmp_path / "moved.nii", study.geometry, study.volume.shape)
    sizes = [32, 32, 8]
    sizes[axis] -= 2
    assert np.count_nonzero(mask) == np.prod(sizes)
