"""NIfTI volumes that nobody here made: the marked vertebrae are where the geometry says, and SimpleITK agrees."""

import json

import numpy as np
import pytest
import SimpleITK
from test_real_dicom import REAL, pytestmark  # noqa: F401 - the reason to skip

from cspine.data.dicom import load_study

FILES = sorted((REAL / "head_neck_nifti").glob("*_ct.nii.gz"))
LEVELS = json.loads((REAL / "levels.json").read_text()) if REAL.is_dir() else {}
MARKED = {name: marks for name, marks in LEVELS.items() if marks["frame"] == "nifti_RAS_mm"}


def voxel_of(geometry, lps):
    """The (z, y, x) indices, whole, of a point of the patient."""
    x, y, z = np.linalg.solve(geometry.affine, [*lps, 1])[:3]
    return round(z), round(y), round(x)


@pytest.mark.parametrize("name", MARKED)
def test_marked_levels_lie_on_bone_from_c1_down(name):
    study = load_study(REAL / MARKED[name]["file"])
    assert study.geometry.spacing_mm == pytest.approx(MARKED[name]["voxel_mm"][2], abs=0.01)
    depths = []
    for level, mark in MARKED[name]["levels"].items():
        right, anterior, superior = mark["center"]
        z, y, x = voxel_of(study.geometry, (-right, -anterior, superior))
        near = study.volume[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2]
        assert near.max() > 150, f"no bone at {level}"
        depths.append(z)
    assert depths == sorted(depths)
    assert len(set(depths)) == len(depths) >= 6


@pytest.mark.parametrize("file", FILES[::8], ids=lambda file: file.name)
def test_simpleitk_sees_the_same_volume(file):
    study = load_study(file)
    image = SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(file)), "LPI")
    assert np.array_equal(np.clip(SimpleITK.GetArrayFromImage(image), -1024, 4095), study.volume)
    size = np.array(study.volume.shape)
    for z, y, x in ((0, 0, 0), size - 1, size // 3):
        point = image.TransformIndexToPhysicalPoint((int(x), int(y), int(z)))
        assert np.allclose(study.geometry.voxel_to_lps(z, y, x), point, atol=1e-3)


def test_a_mask_of_organs_is_not_taken_for_a_ct():
    with pytest.raises(Exception, match="not in Hounsfield units"):
        load_study(REAL / "head_neck_nifti" / "test_pt_256_oar.nii.gz")
