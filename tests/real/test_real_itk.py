"""SimpleITK, another reader on another code base, sees the same HU in the same places."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from test_real_dicom import oddities, pytestmark, unpack  # noqa: F401 - fixtures, and the reason to skip

from cspine.data.dicom import load_study, scan_study
from cspine.data.header import Header, read_header
from cspine.data.pixels import AIR_HU, MAX_HU, SliceError, read_hu

# Read by both, and differently.
DIFFERENT = {"TOSHIBA_J2K_SIZ1_PixRep0.dcm": "its header calls signed data unsigned; here the code stream is believed"}
# CT that SimpleITK reads and this project leaves out.
LEFT_OUT = {
    "several frames in one file": ("CT0012.", "eCT_Supplemental.dcm"),
    "a localizer": ("6293", "6924", "MAROTECH_CT_JP2Lossy.dcm"),
    # Lossy JPEG of more than 8 bits (retired): neither pydicom nor python-gdcm decodes it.
    "does not decode": ("CTImage.dcm_JPEGProcess",),
    "decodes to noise": ("JPEGLossless_1s_1f_i_16_16_bad.dcm",),
}


def read_itk(file: Path) -> SimpleITK.Image | None:
    try:
        return SimpleITK.ReadImage(str(file))
    except RuntimeError:
        return None


def read_here(file: Path) -> tuple[Header | None, np.ndarray | None, str]:
    """The header and HU of a file, or None twice and the reason."""
    try:
        header = read_header(file)
        return header, read_hu(file, header.encoding), ""
    except SliceError as error:
        return None, None, str(error)


def in_range(image: SimpleITK.Image) -> np.ndarray:
    """HU (z, y, x) with this project's two rules: clipped, and rounded to whole numbers."""
    return np.clip(np.rint(SimpleITK.GetArrayFromImage(image).astype(float)), AIR_HU, MAX_HU)


def test_visible_human_is_the_same_volume_in_the_same_place(tmp_path):
    unpacked = unpack("visible_human_male_head.tar.gz", tmp_path)
    folder = next(path for path in unpacked.iterdir() if path.is_dir())
    study = load_study(folder)
    image = SimpleITK.ReadImage(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    # ITK stacks along the normal, from caudal to cranial.
    assert np.array_equal(in_range(image)[::-1], study.volume)
    geometry = study.geometry
    assert np.allclose(image.GetOrigin(), geometry.positions_mm[-1])
    assert np.allclose(image.GetSpacing(), [*geometry.pixel_spacing_mm[::-1], geometry.spacing_mm])
    axes = np.stack([geometry.row_direction, geometry.column_direction, geometry.normal], axis=1)
    assert np.allclose(np.reshape(image.GetDirection(), (3, 3)), axes)
    for z, y, x in ((0, 0, 0), (244, 511, 511), (100, 200, 300)):
        assert np.allclose(image.TransformIndexToPhysicalPoint((x, y, 244 - z)), geometry.voxel_to_lps(z, y, x))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_odd_file_that_both_read_is_the_same(oddities):  # noqa: F811
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    same, different = 0, set()
    for file in sorted(path for path in oddities.rglob("*") if path.is_file()):
        image = read_itk(file)
        header, hu, reason = read_here(file)
        if header is None:
            known = next((names for start, names in LEFT_OUT.items() if reason.startswith(start)), ())
            assert image is None or reason.startswith("modality") or file.name.startswith(known), (file.name, reason)
            continue
        assert image is not None, f"{file.name}: SimpleITK refuses what is read here"
        assert np.allclose(image.GetOrigin(), header.position_mm, atol=1e-6)
        assert np.allclose(image.GetSpacing()[:2], header.pixel_spacing_mm[::-1], atol=1e-9)
        directions = np.reshape(image.GetDirection(), (3, 3))[:, :2].T
        assert np.allclose(directions.ravel(), header.orientation, atol=1e-4)
        if np.array_equal(in_range(image)[0], hu):
            same += 1
        else:
            different.add(file.name)
    assert different == set(DIFFERENT)
    assert same > 45


def test_a_gantry_tilt_is_straightened_as_itk_resamples_it(tmp_path):
    folder = unpack("dicom2nifti_ct.tar.gz", tmp_path) / "dicom2nifti_ct" / "gantrytilting" / "001"
    study, stack = load_study(folder), scan_study(folder)
    geometry = study.geometry
    assert geometry.shifts_px is not None
    # 15 mm of table against 14 degrees of tilt: 3.6 mm, 8.7 pixels; one slice of the four stays where it is.
    assert np.ptp(geometry.shifts_px[:, 0]) == pytest.approx(15 * 0.2419219 / 0.41796875, abs=1e-3)
    assert np.abs(geometry.shifts_px[:, 1]).max() < 1e-9
    assert np.allclose(np.cross(np.diff(geometry.positions_mm, axis=0), geometry.normal), 0, atol=1e-6)
    rows = np.arange(512)
    for z, header in enumerate(stack.headers):
        # In ITK the slice stays and the grid moves: the new positions in the old slice's own plane.
        plane = SimpleITK.GetImageFromArray(read_hu(header.file, header.encoding).astype(np.float32))
        moved = (geometry.positions_mm[z] - header.position_mm) / geometry.pixel_spacing_mm[0]
        grid = SimpleITK.Image(plane.GetSize(), SimpleITK.sitkFloat32)
        grid.SetOrigin((moved @ geometry.row_direction, moved @ geometry.column_direction))
        expected = SimpleITK.Resample(plane, grid, SimpleITK.Transform(), SimpleITK.sitkLinear, AIR_HU)
        # Where both rows of the interpolation exist; at the edge ITK does not blend with air.
        source = rows + moved @ geometry.column_direction
        inside = (source >= 0) & (source <= 511)
        assert inside.sum() > 500
        assert np.abs(SimpleITK.GetArrayFromImage(expected) - study.volume[z])[inside].max() <= 0.51
        assert (study.volume[z][(source < -1) | (source > 512)] == AIR_HU).all()
