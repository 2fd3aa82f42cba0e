"""The decoder and the field of view on CT that nobody here made."""

import contextlib
import json
import tarfile
from pathlib import Path

import nibabel
import numpy as np
import pytest

from cspine.config import Preprocess
from cspine.data.body import body_centre, body_mask
from cspine.data.dicom import StudyError, load_study
from cspine.data.header import read_header
from cspine.data.pixels import SliceError, read_hu
from cspine.data.preprocess import cut, plan_study

REAL = Path(__file__).parents[3] / "shared" / "realct"
pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason=f"the real CT is not at {REAL}")


def unpack(name: str, folder: Path) -> Path:
    with tarfile.open(REAL / name) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    folder = unpack("visible_human_male_head.tar.gz", tmp_path_factory.mktemp("head"))
    return load_study(next(path for path in folder.iterdir() if path.is_dir()))


@pytest.fixture(scope="module")
def oddities(tmp_path_factory):
    return unpack("dicom_oddities.tar.gz", tmp_path_factory.mktemp("oddities"))


def test_visible_human_is_ordered_and_in_hounsfield_units(head):
    assert head.volume.shape == (245, 512, 512)
    assert head.skipped == ()
    assert np.allclose(np.diff(head.geometry.z_mm), -1)
    assert head.geometry.file_numbers.tolist() == list(range(1245, 1000, -1))
    assert np.median(head.volume[:, :20]) == -1024
    assert head.volume.max() > 2000
    # The brain case is above, the shoulders are below.
    body = (head.volume > -300).sum(axis=(1, 2))
    assert body[240] > 1.5 * body[10]


def test_visible_human_neck_lies_in_the_field(head):
    config = Preprocess()
    plan = plan_study(head.volume, head.geometry, config)
    crop, pixels = plan.crop, cut(head.volume, plan, config)
    assert pixels.shape == (245, 1, 256, 256)
    levels = json.loads((REAL / "levels.json").read_text())
    for level in levels["visible_human_male_head"]["levels"].values():
        x, y, z = level["center"]
        row, column = crop.to_cached(y, x)  # 1 mm pixels from LPS (0, 0)
        assert 60 < row < 170
        assert 90 < column < 166
        index = int(np.argmin(np.abs(head.geometry.z_mm - z)))
        patch = pixels[index, 0, round(row) - 12 : round(row) + 12, round(column) - 12 : round(column) + 12]
        assert patch.max() > 140, "no bone where the vertebra was marked"


def test_visible_human_is_parted_from_table_and_head_rest(head):
    spacing, volume = head.geometry.pixel_spacing_mm, head.volume
    bodies = np.array([body_mask(pixels, -300, spacing) for pixels in volume[::8]])
    inside = volume[::8] > -300
    # The table is a thin shell behind the patient; nearly all else that is dense is body.
    assert not bodies[:, -100:].any()
    assert np.count_nonzero(inside & bodies) / np.count_nonzero(inside) > 0.95
    levels = json.loads((REAL / "levels.json").read_text())
    for level in levels["visible_human_male_head"]["levels"].values():
        x, y, z = map(round, level["center"])
        index = int(np.argmin(np.abs(head.geometry.z_mm - z)))
        assert body_mask(volume[index], -300, spacing)[y - 10 : y + 10, x - 10 : x + 10].all()


def test_field_holds_the_vertebrae_of_other_patients():
    levels = json.loads((REAL / "levels.json").read_text())
    for name, marked in levels.items():
        file = REAL / "head_neck_nifti" / f"{name}_ct.nii.gz"
        if not file.is_file():
            continue
        image = nibabel.as_closest_canonical(nibabel.load(file))
        volume = np.asarray(image.dataobj).astype(np.int16).transpose(2, 1, 0)[::-1, ::-1, ::-1]
        y, x = body_centre(volume)
        for level in marked["levels"].values():
            i, j, _ = (np.linalg.inv(image.affine) @ [*level["center"], 1])[:3]
            dx, dy = (
                (volume.shape[2] - 1 - i - x) * abs(image.affine[0, 0]),
                (volume.shape[1] - 1 - j - y) * abs(image.affine[1, 1]),
            )
            # A vertebra reaches 25 mm before its centre and 60 mm behind it; the field ends at 90.
            assert abs(dx) < 40, name
            assert -60 < dy < 25, name


SAME = {
    "CTImage.dcm": (
        "CTImage.dcm",
        "CTImage.dcm_BigEndianExplicitTransferSyntax_1.2.840.10008.1.2.2.dcm",
        "CTImage.dcm_DeflatedExplicitVRLittleEndianTransferSyntax_1.2.840.10008.1.2.1.99.dcm",
        "CTImage.dcm_JPEG2000LosslessOnlyTransferSyntax_1.2.840.10008.1.2.4.90.dcm",
        "CTImage.dcm_JPEGLSLosslessTransferSyntax_1.2.840.10008.1.2.4.80.dcm",
        "CTImage.dcm_JPEGProcess14SV1TransferSyntax_1.2.840.10008.1.2.4.70.dcm",
        "CTImage.dcm_JPEGProcess14TransferSyntax_1.2.840.10008.1.2.4.57.dcm",
        "CTImage.dcm_LittleEndianExplicitTransferSyntax_1.2.840.10008.1.2.1.dcm",
        "CTImage.dcm_RLELosslessTransferSyntax_1.2.840.10008.1.2.5.dcm",
    ),
    "TOSHIBA_J2K_SIZ0_PixRep1.dcm": ("TOSHIBA_J2K_SIZ1_PixRep0.dcm",),  # signed data, called unsigned
    "CT1_UNC.explicit_little_endian.dcm": (
        "CT1_UNC.explicit_big_endian.dcm",
        "CT1_UNC.fragmented_no_bot_jpeg_ls.80.dcm",
        "CT1_J2KR",
    ),
}


def read(folder: Path, name: str, fast: bool = True) -> np.ndarray:
    file = next(folder.rglob(name))
    return read_hu(file, read_header(file).encoding, fast)


@pytest.mark.parametrize("original", SAME)
def test_lossless_encodings_of_one_slice_agree(oddities, original):
    expected = read(oddities, original)
    assert expected.min() < -900
    for name in SAME[original]:
        assert np.array_equal(read(oddities, name), expected), name
        assert np.array_equal(read(oddities, name, fast=False), expected), name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("CTImage.dcm_JPEGProcess6_8TransferSyntax_1.2.840.10008.1.2.4.53.dcm", "does not decode"),
        ("CTImage.dcm_JPEGProcess10_12TransferSyntax_1.2.840.10008.1.2.4.55.dcm", "does not decode"),
        ("JPEGLossless_1s_1f_i_16_16_bad.dcm", "decodes to noise"),
        ("CT0012.not_fragmented_bot_rle.dcm", "several frames"),
        ("MAROTECH_CT_JP2Lossy.dcm", "a localizer"),
        ("liver.dcm", "modality SEG"),
        ("DICOMDIR", "no pixel data"),
    ],
)
def test_refusals_say_why(oddities, name, reason):
    with pytest.raises(SliceError, match=reason):
        read(oddities, name)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_no_odd_file_does_worse_than_a_reason(oddities):
    files = [file for file in oddities.rglob("*") if file.is_file()]
    decoded = refused = 0
    for file in files:
        try:
            encoding = read_header(file).encoding
            hu = read_hu(file, encoding)
            assert np.array_equal(hu, read_hu(file, encoding, fast=False))
            decoded += 1
        except SliceError:
            refused += 1
    assert decoded > 45
    assert decoded + refused == len(files)
    for folder in {file.parent for file in files}:
        with contextlib.suppress(StudyError):
            load_study(folder)


def test_series_with_uneven_steps_tilt_and_one_place(tmp_path):
    root = unpack("dicom2nifti_ct.tar.gz", tmp_path) / "dicom2nifti_ct"
    uneven = load_study(root / "sliceincrement" / "001").geometry
    assert np.allclose(-np.diff(uneven.z_mm), [10, 5, 5])
    tilted = load_study(root / "gantrytilting" / "001").geometry
    assert tilted.spacing_mm == pytest.approx(5 * tilted.normal[2])
    with pytest.raises(StudyError, match="3 x duplicate position"):
        load_study(root / "notavolume" / "001")
