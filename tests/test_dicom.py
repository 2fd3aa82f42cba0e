import pickle
import tracemalloc

import numpy as np
import pydicom
import pytest
from conftest import body_hu, damage, slice_dataset, write_study
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from cspine.data import pixels
from cspine.data.dicom import StudyError, load_study, scan_study


@pytest.mark.parametrize("ascending", [False, True])
def test_volume_is_cranial_to_caudal_in_either_direction_of_numbering(tmp_path, ascending):
    volume = body_hu(12)
    study = load_study(write_study(tmp_path / "s", volume, ascending, first=2))
    assert study.volume.dtype == np.int16
    assert np.array_equal(study.volume, volume)
    numbers = np.arange(2, 14)
    assert study.geometry.file_numbers.tolist() == (numbers[::-1] if ascending else numbers).tolist()
    assert study.geometry.spacing_mm == 3.0
    assert study.skipped == ()


def test_512_by_519_like_slices_keep_their_shape(tmp_path):
    volume = body_hu(4, 32, 39)
    assert np.array_equal(load_study(write_study(tmp_path / "s", volume)).volume, volume)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_native_transfer_syntaxes(tmp_path, syntax):
    volume = body_hu(3)
    for index, hu in enumerate(volume):
        dataset = slice_dataset(hu, -index, index)
        dataset.file_meta.TransferSyntaxUID = syntax
        little = syntax.is_little_endian
        dataset.PixelData = (hu.astype(np.int32) + 1024).astype("<i2" if little else ">i2").tobytes()
        pydicom.dcmwrite(tmp_path / f"{index}.dcm", dataset, little_endian=little, implicit_vr=syntax.is_implicit_VR)
    assert np.array_equal(load_study(tmp_path).volume, volume)


def test_compressed_slices_and_their_truncation(tmp_path):
    volume = body_hu(5)
    for index, hu in enumerate(volume):
        dataset = slice_dataset(hu, -index, index)
        dataset.compress(RLELossless)
        dataset.save_as(tmp_path / f"{index}.dcm")
    assert np.array_equal(load_study(tmp_path).volume, volume)
    damage(tmp_path / "1.dcm", 0.9)
    study = load_study(tmp_path)
    assert np.array_equal(study.volume, volume[[0, 2, 3, 4]])
    assert study.skipped[0][0] == "1.dcm"
    assert "truncated" in study.skipped[0][1]


def test_slices_whose_codec_fails_are_listed_and_the_geometry_follows(tmp_path):
    volume = body_hu(5)
    write_study(tmp_path, volume)
    dataset = slice_dataset(volume[2], 94, 3)
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51 no code stream"])
    dataset["PixelData"].VR = "OB"
    dataset.save_as(tmp_path / "3.dcm")
    study = load_study(tmp_path)
    assert study.geometry.file_numbers.tolist() == [1, 2, 4, 5]
    assert np.array_equal(study.volume, volume[[0, 1, 3, 4]])
    assert study.skipped[0][1].startswith("does not decode")


def change_one(folder, **changes):
    """Rewrite 2.dcm of a study with changed elements."""
    slice_dataset(body_hu()[1], 97, 2, **changes).save_as(folder / "2.dcm")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "a localizer"),
        ({"Modality": "MR"}, "modality MR, not CT"),
        ({"NumberOfFrames": 2}, "several frames in one file"),
        ({"PixelData": None}, "no pixel data"),
        ({"ImagePositionPatient": None}, "no ImagePositionPatient"),
        ({"PixelSpacing": None}, "no PixelSpacing"),
        ({"ImagePositionPatient": [-30, -40, 100]}, "duplicate position (same place as 1.dcm)"),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "another orientation than most slices"),
        ({"PixelSpacing": [1, 1]}, "another pixel spacing than most slices"),
        ({"PixelSpacing": [0, 0]}, "an impossible position"),
        ({"Rows": 16, "PixelData": b"\0" * 1024}, "another size than most slices (16 x 32, not 32 x 32)"),
        ({"PixelData": b"\0" * 100}, "truncated pixel data (100 of 2048 bytes)"),
    ],
)
def test_unusable_slices_are_listed_with_their_reason(tmp_path, changes, reason):
    write_study(tmp_path, body_hu())
    change_one(tmp_path, **changes)
    study = load_study(tmp_path)
    assert len(study.volume) == 7
    [(name, given)] = study.skipped
    assert name == "2.dcm"
    assert given.startswith(reason)


@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICM\x02\0\0\0UL\x04\0"])
def test_files_that_are_not_dicom_are_listed(tmp_path, content):
    write_study(tmp_path, body_hu())
    (tmp_path / "9.dcm").write_bytes(content)
    (tmp_path / "folder").mkdir()
    study = load_study(tmp_path)
    assert len(study.volume) == 8
    assert {name for name, _ in study.skipped} == {"9.dcm", "folder"}


@pytest.mark.parametrize("keep", [0.05, 0.3, 0.6, 0.99])
def test_a_file_cut_anywhere_is_listed(tmp_path, keep):
    write_study(tmp_path, body_hu())
    damage(tmp_path / "4.dcm", keep)
    study = load_study(tmp_path)
    assert len(study.volume) == 7
    assert study.skipped[0][0] == "4.dcm"


def test_a_study_with_too_few_slices_is_refused_with_the_causes(tmp_path):
    write_study(tmp_path, body_hu(5))
    for number in (1, 2, 3):
        damage(tmp_path / f"{number}.dcm", 0.7)
    with pytest.raises(StudyError, match="2 usable slices, at least 3 are needed; left out: 3 x truncated") as caught:
        load_study(tmp_path)
    assert len(pickle.loads(pickle.dumps(caught.value)).skipped) == 3


def test_empty_missing_and_sagittal_studies_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    write_study(tmp_path / "sagittal", body_hu(), ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
    for name, reason in (("empty", "empty"), ("gone", "no such folder"), ("sagittal", "not axial")):
        with pytest.raises(StudyError, match=reason):
            scan_study(tmp_path / name)


def test_slope_and_unsigned_pixels(tmp_path):
    hu = np.full((4, 32, 32), -1000, np.int16)
    hu[:, 10:20, 10:20] = 500
    stored = ((hu + 1000) / 2).astype("<u2")
    changes = {"RescaleSlope": 2, "RescaleIntercept": -1000, "PixelRepresentation": 0}
    for index in range(4):
        slice_dataset(hu[index], -index, index, PixelData=stored[index].tobytes(), **changes).save_as(
            tmp_path / f"{index}.dcm"
        )
    assert np.array_equal(load_study(tmp_path).volume, hu)


def one_slice(tmp_path, stored, **changes):
    """HU of a slice stored as given, through three copies of it."""
    for index in range(3):
        slice_dataset(np.zeros(stored.shape, np.int16), -index, index, PixelData=stored.tobytes(), **changes).save_as(
            tmp_path / f"{index}.dcm"
        )
    return load_study(tmp_path).volume[0]


def test_declared_padding_is_air_even_where_it_looks_like_metal(tmp_path):
    stored = np.full((32, 32), 1064, "<u2")
    stored[:4] = 63536  # -2000 in a header that calls its pixels unsigned
    hu = one_slice(tmp_path, stored, PixelRepresentation=0, PixelPaddingValue=63536)
    assert (hu[:4] == -1024).all()
    assert (hu[4:] == 40).all()


@pytest.mark.parametrize("padding", [-2000, -1500, -32768])
def test_undeclared_padding_is_clipped_to_air(tmp_path, padding):
    stored = np.full((32, 32), 1064, "<i2")
    stored[:4] = padding
    hu = one_slice(tmp_path, stored)
    assert (hu[:4] == -1024).all()
    assert (hu[4:] == 40).all()


@pytest.mark.parametrize(("bits", "signed"), [(12, 0), (16, 0), (16, 1)])
@pytest.mark.parametrize("inverted", [True, False])
def test_monochrome1_is_read_as_its_values_demand(tmp_path, bits, signed, inverted):
    hu = body_hu()[0]
    stored = hu.astype(np.int32) + 1024
    if inverted:
        stored = (-1 if signed else 2**bits - 1) - stored
    given = one_slice(
        tmp_path,
        stored.astype("<i2" if signed else "<u2"),
        PhotometricInterpretation="MONOCHROME1",
        PixelRepresentation=signed,
        BitsStored=bits,
        HighBit=bits - 1,
    )
    assert np.array_equal(given, hu)


def test_bits_beside_the_stored_ones_are_dropped_and_the_sign_extended(tmp_path):
    stored = np.full((32, 32), 1064, "<u2")
    stored[3, 3] |= 0x8000  # an overlay drawn in an unused bit
    hu = one_slice(tmp_path, stored, BitsStored=12, HighBit=11, PixelRepresentation=0)
    assert (hu == 40).all()
    for file in tmp_path.iterdir():
        file.unlink()
    signed = np.full((32, 32), 0x0FF0, "<u2")  # -16 in twelve bits
    assert (one_slice(tmp_path, signed, BitsStored=12, HighBit=11, RescaleIntercept=0) == -16).all()


def test_without_dicomsdl_it_works_and_says_so_once(monkeypatch, caplog):
    monkeypatch.setattr(pixels, "dicomsdl", None)
    pixels.has_dicomsdl.cache_clear()
    assert not pixels.has_dicomsdl()
    assert not pixels.has_dicomsdl()
    pixels.has_dicomsdl.cache_clear()
    assert [record.getMessage().split()[0] for record in caplog.records] == ["dicomsdl"]


def write_series(folder, uid, volume, first_number, start_mm=100.0, step_mm=3.0):
    """Add a series, cranial to caudal, to a folder."""
    folder.mkdir(exist_ok=True)
    for index, hu in enumerate(volume):
        number = first_number + index
        slice_dataset(hu, start_mm - step_mm * index, number, SeriesInstanceUID=uid).save_as(folder / f"{number}.dcm")


def test_of_two_series_at_the_same_places_the_longer_is_taken_whole(tmp_path):
    soft, bone = body_hu(8), body_hu(7) + np.int16(7)
    # Interleaved file by file, the shorter first, so that its slices would win every place.
    write_series(tmp_path, "1.2.1", bone, 1)
    write_series(tmp_path, "1.2.2", soft, 101)
    study = load_study(tmp_path)
    assert np.array_equal(study.volume, soft)
    assert len(study.skipped) == 7
    assert {reason for _, reason in study.skipped} == {"another series than most slices (1.2.1, not 1.2.2)"}


def test_a_series_is_judged_by_its_usable_slices(tmp_path):
    # Nine files, of which six lie at one place, against five good ones.
    write_series(tmp_path, "1.2.1", body_hu(3), 1)
    write_series(tmp_path, "1.2.1", body_hu(6), 11, step_mm=0.0)
    write_series(tmp_path, "1.2.2", body_hu(5), 21)
    assert load_study(tmp_path).geometry.file_numbers.tolist() == [21, 22, 23, 24, 25]


def test_of_equally_many_slices_the_longer_series_and_then_the_first_file_decides(tmp_path):
    write_series(tmp_path / "a", "1.2.1", body_hu(5), 1, step_mm=1.0)
    write_series(tmp_path / "a", "1.2.2", body_hu(5), 11, step_mm=3.0)
    assert load_study(tmp_path / "a").geometry.file_numbers.tolist() == [11, 12, 13, 14, 15]
    write_series(tmp_path / "b", "1.2.9", body_hu(5), 1)
    write_series(tmp_path / "b", "1.2.1", body_hu(5), 11)
    assert load_study(tmp_path / "b").geometry.file_numbers.tolist() == [1, 2, 3, 4, 5]


def test_a_series_of_its_own_for_every_file_tells_nothing(tmp_path):
    for index, hu in enumerate(body_hu(4)):
        write_series(tmp_path, f"1.2.{index}", hu[None], index + 1, start_mm=100 - 3 * index)
    assert np.array_equal(load_study(tmp_path).volume, body_hu(4))


def test_gaps_and_uneven_steps_are_used_at_their_true_places(tmp_path):
    heights = [100.0, 97.0, 94.0, 61.5, 60.0]
    for number, (z_mm, hu) in enumerate(zip(heights, body_hu(5), strict=True), 2):
        slice_dataset(hu, z_mm, number).save_as(tmp_path / f"{number}.dcm")
    geometry = load_study(tmp_path).geometry
    assert geometry.z_mm.tolist() == heights
    assert geometry.spacing_mm == 3.0
    assert geometry.voxel_to_lps(2.5, 0, 0)[2] == pytest.approx(77.75)


def test_orientations_that_differ_in_a_written_decimal_are_one_stack(tmp_path):
    # On either side of where rounding to three decimals parts them.
    for index, hu in enumerate(body_hu(6)):
        tilt = 0.0995 + (1e-6 if index % 2 else -1e-6)
        frame = [1, 0, 0, 0, f"{np.sqrt(1 - tilt**2):.7f}", f"{-tilt:.7f}"]
        slice_dataset(hu, -index, index, ImageOrientationPatient=frame).save_as(tmp_path / f"{index}.dcm")
    assert len(load_study(tmp_path).volume) == 6


@pytest.mark.parametrize("frame", [[2, 0, 0, 0, 2, 0], [1, 0, 0, 0.5, 0.866, 0]])
def test_directions_that_are_no_frame_are_listed(tmp_path, frame):
    write_study(tmp_path, body_hu())
    change_one(tmp_path, ImageOrientationPatient=frame)
    assert load_study(tmp_path).skipped == (
        ("2.dcm", "row and column directions that are no perpendicular unit vectors"),
    )


@pytest.mark.parametrize(("tilt_deg", "accepted"), [(44, True), (46, False)])
def test_slices_are_axial_up_to_45_degrees(tmp_path, tilt_deg, accepted):
    tilt = np.radians(tilt_deg)
    frame = [1, 0, 0, 0, np.cos(tilt), -np.sin(tilt)]
    write_study(tmp_path, body_hu(), ImageOrientationPatient=[f"{value:.6f}" for value in frame])
    if accepted:
        assert len(scan_study(tmp_path).headers) == 8
        return
    with pytest.raises(StudyError, match="not axial: 46 degrees off, at most 45"):
        scan_study(tmp_path)


def test_the_largest_study_needs_one_volume_in_memory(tmp_path):
    volume = body_hu(24, 256, 256)
    write_study(tmp_path, volume)
    damage(tmp_path / "5.dcm", 0.5)
    (tmp_path / "6.dcm").write_bytes((tmp_path / "6.dcm").read_bytes()[:-9])
    tracemalloc.start()
    study = load_study(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(study.volume) == 22
    assert peak < 1.5 * volume.nbytes
