"""Tiny studies and datasets in the RSNA layout, written as a test needs them."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from cspine.anatomy import TARGETS
from cspine.config import Data, DatasetConfig, Folds, Paths, Preprocess

SPACING_MM, STEP_MM = 2.0, 3.0


def body_hu(slices: int = 8, rows: int = 32, columns: int = 32) -> np.ndarray:
    """int16 HU (z, y, x), cranial to caudal: air, a soft body, a bone whose HU tells the slice from its neighbours."""
    volume = np.full((slices, rows, columns), -1000, np.int16)
    volume[:, 8:26, 6:26] = 40
    volume[:, 18:22, 14:18] = 400 + 20 * np.arange(slices)[:, None, None]
    return volume


def slice_dataset(hu: np.ndarray, z_mm: float, number: int, **changes: Any) -> FileDataset:
    """One CT slice; `changes` are DICOM keywords, None deletes the element."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.InstanceNumber = "CT", number
    dataset.Rows, dataset.Columns = hu.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.RescaleIntercept, dataset.RescaleSlope = -1024, 1
    dataset.ImagePositionPatient = [-30.0, -40.0, z_mm]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.SliceThickness = [SPACING_MM, SPACING_MM], 4.0
    dataset.PixelData = (hu.astype(np.int32) + 1024).astype("<i2").tobytes()
    for keyword, value in changes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def write_study(folder: Path, volume: np.ndarray, ascending: bool = False, first: int = 1, **changes: Any) -> Path:
    """Write a volume, cranial to caudal, as `<number>.dcm`; `ascending` numbers it from caudal to cranial."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, hu in enumerate(volume):
        number = first + (len(volume) - 1 - index if ascending else index)
        slice_dataset(hu, 100 - STEP_MM * index, number, **changes).save_as(folder / f"{number}.dcm")
    return folder


def write_mask(file: Path, labels: np.ndarray, shift_mm: float = 0.0) -> Path:
    """Write labels (z, y, x), cranial to caudal on the grid of `write_study`, sagittal first as RSNA stores them.

    The array runs from caudal to cranial and from posterior to anterior, so only its affine tells how it lies.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    slices, rows, _ = labels.shape
    array = labels[::-1, ::-1].transpose(2, 1, 0)
    to_ras = np.diag([-SPACING_MM, SPACING_MM, STEP_MM, 1.0])
    to_ras[:3, 3] = [30 + shift_mm, 40 - SPACING_MM * (rows - 1), 100 - STEP_MM * (slices - 1)]
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(array), to_ras), file)
    return file


def damage(file: Path, keep: float) -> None:
    """Cut a file off after a share of its bytes."""
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * keep)])


def stored_hu(file: Path) -> np.ndarray:
    return pydicom.dcmread(file).pixel_array.astype(int) - 1024


class TinyDataset:
    """A dataset of a few tiny studies in a temporary folder, and the config that points at it."""

    def __init__(self, folder: Path, studies: int = 6) -> None:
        self.root = folder / "data"
        self.uids = [f"1.2.826.0.1.3680043.{number}" for number in range(1, studies + 1)]
        self.volume = body_hu()
        for number, uid in enumerate(self.uids):
            # A voxel of air below every window tells the studies apart; no preprocessing sees it.
            own = self.volume.copy()
            own[:, 0, 0] = -1000 + number
            write_study(self.images(uid), own, ascending=number % 2 == 1)
        self.labels = pd.DataFrame(0, index=range(studies), columns=["StudyInstanceUID", *TARGETS])
        self.labels["StudyInstanceUID"] = self.uids
        self.labels.loc[::2, ["patient_overall", "C2"]] = 1
        self.boxes = pd.DataFrame(
            [(self.uids[0], 10.0, 12.0, 6.0, 5.0, 3)],
            columns=["StudyInstanceUID", "x", "y", "width", "height", "slice_number"],
        )
        write_mask(self.mask(self.uids[1]), self.mask_labels())
        self.write_tables()
        self.config = DatasetConfig(
            paths=Paths(input=str(folder / "in"), cache=str(folder / "cache")),
            preprocess=Preprocess(field_mm=48.0, size_px=24),
            folds=Folds(count=2),
            data=Data(root=str(self.root), workers=1),
        )

    def images(self, uid: str) -> Path:
        return self.root / "train_images" / uid

    def mask(self, uid: str) -> Path:
        return self.root / "segmentations" / f"{uid}.nii"

    def mask_labels(self) -> np.ndarray:
        """C1 on the two most cranial slices, C2 on the next three, T1 on the last two."""
        labels = np.zeros(self.volume.shape, np.uint8)
        for level, slices in ((1, slice(0, 2)), (2, slice(2, 5)), (8, slice(6, 8))):
            labels[slices, 18:22, 14:18] = level
        return labels

    def write_tables(self) -> None:
        self.labels.to_csv(self.root / "train.csv", index=False)
        self.boxes.to_csv(self.root / "train_bounding_boxes.csv", index=False)


@pytest.fixture
def tiny(tmp_path: Path) -> TinyDataset:
    return TinyDataset(tmp_path)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny_pipeline.Prepared with the runs v, f and g trained, an ensemble and a test set; no test may change it."""
    from tiny_pipeline import Prepared

    made = Prepared(tmp_path_factory.mktemp("trained"))
    made.train()
    made.train_mirrored()
    made.ensemble()
    made.trust_members()
    made.add_test_set()
    return made


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny_pipeline.Prepared with the vertebra run v and the detectors d; no test may change it."""
    from tiny_pipeline import ALONE, Prepared, train_fold

    made = Prepared(tmp_path_factory.mktemp("searched"))
    for fold in (0, 1):
        train_fold(made.vertebra, fold, ALONE)
    made.train_detector()
    return made
