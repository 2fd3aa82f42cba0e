"""The same volume as DICOM and as NIfTI, however it is stored, is the same study."""

import gzip
import itertools

import nibabel
import numpy as np
import pytest
from conftest import SPACING_MM, STEP_MM, body_hu, write_study
from nibabel.orientations import apply_orientation, inv_ornt_aff

from cspine.data.dicom import load_study, scan_study
from cspine.data.layout import studies_in, study_path
from cspine.data.study import StudyError

ORIENTATIONS = [
    np.array(list(zip(axes, flips, strict=True)))
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]


def uneven_body() -> np.ndarray:
    """A volume with no symmetry and three different sizes."""
    volume = body_hu(7, 30, 36)
    volume[:, :3, :5] = 700
    volume[0, 10:12, 6:20] = -77
    return volume


def to_ras() -> np.ndarray:
    """The affine from (x, y, z) of a volume of conftest.write_study to RAS mm."""
    affine = np.diag([-SPACING_MM, -SPACING_MM, -STEP_MM, 1.0])
    affine[:3, 3] = [30, 40, 100]
    return affine


def write_nifti(file, volume, orientation=ORIENTATIONS[0], affine=None, dtype=None, **header):
    """Write HU (z, y, x) with the axes permuted and flipped as a nibabel orientation says."""
    xyz = volume.transpose(2, 1, 0)
    affine = to_ras() if affine is None else affine
    array = np.ascontiguousarray(apply_orientation(xyz, orientation))
    image = nibabel.Nifti1Image(array.astype(dtype or array.dtype), affine @ inv_ornt_aff(orientation, xyz.shape))
    for key, value in header.items():
        image.header[key] = value
    nibabel.save(image, file)
    return file


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_every_way_of_storing_gives_the_volume_and_geometry_of_the_dicom_study(tmp_path, suffix):
    volume = uneven_body()
    dicom = load_study(write_study(tmp_path / "s", volume))
    assert len(ORIENTATIONS) == 48
    for orientation in ORIENTATIONS if suffix == ".nii" else ORIENTATIONS[::7]:
        study = load_study(write_nifti(tmp_path / f"v{suffix}", volume, orientation))
        assert np.array_equal(study.volume, volume), orientation
        assert study.volume.dtype == np.int16
        for z, y, x in ((0, 0, 0), (6, 29, 35), (3, 11, 4)):
            assert np.allclose(study.geometry.voxel_to_lps(z, y, x), dicom.geometry.voxel_to_lps(z, y, x), atol=1e-4)
        assert study.geometry.file_numbers.tolist() == [1, 2, 3, 4, 5, 6, 7]
        assert np.allclose(study.geometry.pixel_spacing_mm, dicom.geometry.pixel_spacing_mm)
        assert np.allclose(study.geometry.normal, [0, 0, 1])
        assert scan_study(tmp_path / f"v{suffix}").shape == volume.shape


def turn(angle_deg: float) -> np.ndarray:
    """A rotation about the left-right axis."""
    angle = np.radians(angle_deg)
    matrix = np.eye(4)
    matrix[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return matrix


@pytest.mark.parametrize("angle_deg", [-30, 12])
def test_oblique_volumes_keep_their_own_axes(tmp_path, angle_deg):
    volume = uneven_body()
    affine = turn(angle_deg) @ to_ras()
    for orientation in ORIENTATIONS[::5]:
        study = load_study(write_nifti(tmp_path / "v.nii", volume, orientation, affine))
        assert np.array_equal(study.volume, volume)
        truth = np.diag([-1, -1, 1, 1]) @ affine @ [5, 8, 2, 1]
        assert np.allclose(study.geometry.voxel_to_lps(2, 8, 5), truth[:3], atol=1e-4)
        assert study.geometry.normal[2] == pytest.approx(np.cos(np.radians(angle_deg)), abs=1e-5)


def test_floats_are_rounded_nan_and_infinity_have_a_place_and_scaling_is_applied(tmp_path):
    volume = uneven_body().astype(np.float32)
    volume[1, 2, 3:8] = np.nan, np.inf, -np.inf, 40.6, 9000
    study = load_study(write_nifti(tmp_path / "v.nii", volume))
    assert study.volume[1, 2, 3:8].tolist() == [-1024, 4095, -1024, 41, 4095]
    stored = ((uneven_body() + 1024) // 2).astype(np.int16)
    file = write_nifti(tmp_path / "scaled.nii", stored, scl_slope=2, scl_inter=-1024)
    # nibabel resets the scaling of images in memory, so the two numbers are put into the file.
    content = bytearray(file.read_bytes())
    content[112:120] = np.array([2, -1024], "<f4").tobytes()
    file.write_bytes(content)
    assert np.array_equal(load_study(file).volume, stored * 2 - 1024)


def shear() -> np.ndarray:
    matrix = np.eye(4)
    matrix[1, 2] = 0.3
    return matrix @ to_ras()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda v: {"volume": np.clip(v + 1024, 0, 255).astype(np.uint8)},
            "not in Hounsfield units",
        ),
        (lambda v: {"volume": v, "affine": shear()}, "not perpendicular"),
        (lambda v: {"volume": v, "xyzt_units": 1}, "coordinates in meter, not mm"),
        (lambda v: {"volume": v[:2]}, "2 usable slices"),
        (lambda v: {"volume": v, "dtype": np.complex64}, "voxels of type complex64"),
    ],
)
def test_what_is_no_ct_volume_is_refused_with_the_reason(tmp_path, change, reason):
    file = write_nifti(tmp_path / "v.nii", **change(uneven_body()))
    with pytest.raises(StudyError, match=reason):
        load_study(file)


def test_a_volume_turned_by_more_than_45_degrees_is_cut_across_its_other_axis(tmp_path):
    study = load_study(write_nifti(tmp_path / "v.nii", uneven_body(), affine=turn(60) @ to_ras()))
    assert study.volume.shape == (30, 7, 36)
    assert study.geometry.normal[2] == pytest.approx(np.cos(np.radians(30)))


def test_a_volume_that_does_not_say_how_it_lies_is_refused(tmp_path):
    file = write_nifti(tmp_path / "v.nii", uneven_body())
    content = bytearray(file.read_bytes())
    content[252:256] = bytes(4)  # qform_code, sform_code
    file.write_bytes(content)
    with pytest.raises(StudyError, match="does not say how the volume lies"):
        load_study(file)


def test_four_axes_and_unreadable_files_are_refused(tmp_path):
    volume = uneven_body()
    nibabel.save(nibabel.Nifti1Image(np.stack([volume, volume], -1), np.eye(4)), tmp_path / "4d.nii")
    (tmp_path / "text.nii").write_text("no image")
    file = write_nifti(tmp_path / "cut.nii", volume)
    file.write_bytes(file.read_bytes()[:-10])
    packed = gzip.compress(write_nifti(tmp_path / "whole.nii", volume).read_bytes())
    (tmp_path / "cut.nii.gz").write_bytes(packed[:-200])
    # Damage that only the checksum at the end of the file shows.
    (tmp_path / "sum.nii.gz").write_bytes(packed[:-8] + bytes([packed[-8] ^ 1]) + packed[-7:])
    for name, reason in (
        ("4d.nii", "4 axes"),
        ("text.nii", "not a readable NIfTI file"),
        ("cut.nii", "it ends in plane"),
        ("cut.nii.gz", "cut.nii.gz: not (a )?readable"),
        ("sum.nii.gz", "CRC check failed"),
        ("gone.nii", "no such file"),
    ):
        with pytest.raises(StudyError, match=reason):
            load_study(tmp_path / name)


def test_studies_are_folders_and_files_and_the_folder_comes_first(tmp_path):
    write_study(tmp_path / "1.2.3", body_hu())
    for name in ("1.2.3.nii.gz", "1.2.4.nii.gz", "1.2.5.nii"):
        write_nifti(tmp_path / name, body_hu())
    (tmp_path / "readme.txt").write_text("not a study")
    assert studies_in(tmp_path) == ["1.2.3", "1.2.4", "1.2.5"]
    found = [study_path(tmp_path, uid).name for uid in ("1.2.3", "1.2.4", "1.2.5", "9")]
    assert found == ["1.2.3", "1.2.4.nii.gz", "1.2.5.nii", "9"]
    assert studies_in(tmp_path / "gone") == []
