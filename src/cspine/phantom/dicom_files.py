"""One study's files: a DICOM series, and its mask as NIfTI."""

import shutil
import struct
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLosslessSV1

from cspine.data.lossless import compress_lossless
from cspine.paths import atomic
from cspine.phantom.canvas import Grid
from cspine.phantom.labels import DECLARED_PADDING, Storage, StudyPlan

SYNTAXES = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "jpeg_lossless": JPEGLosslessSV1,
}


def file_numbers(plan: StudyPlan, count: int) -> np.ndarray:
    """The file number of every slice, slices cranial to caudal; most studies count downwards along z."""
    numbers = np.arange(count) + plan.first_number
    return numbers[::-1] if plan.ascending else numbers


def write_series(folder: Path, hu: np.ndarray, grid: Grid, plan: StudyPlan, thickness_mm: float) -> None:
    """Write `<n>.dcm` for int16 HU (z, y, x) under a temporary name, then give the folder its own."""
    temporary = folder.with_name(f".{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    header = _header(plan, grid, thickness_mm)
    outside = _outside_field(grid)
    for k, number in enumerate(file_numbers(plan, len(hu)).tolist()):
        header.InstanceNumber = number
        header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = UID(f"{plan.uid}.1.{number}")
        x, y, z = grid.origin
        header.ImagePositionPatient = [_text(x), _text(y), _text(z - k * grid.spacing_mm)]
        _put_pixels(header, _stored(hu[k], outside, plan.storage), plan.storage)
        header.save_as(temporary / f"{number}.dcm", enforce_file_format=True)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def _stored(hu: np.ndarray, outside: np.ndarray, storage: Storage) -> np.ndarray:
    """The integers in the file, (rows, columns), of one slice in int16 HU."""
    stored = (hu - storage.intercept_hu).astype(np.int16 if storage.signed else np.uint16)
    if storage.padding is not None:
        stored[outside] = storage.padding
    return stored


def _outside_field(grid: Grid) -> np.ndarray:
    """bool (rows, columns): beyond the circle that touches the slice's nearer sides."""
    _, rows, columns = grid.shape
    y, x = np.ogrid[:rows, :columns]
    return (y - (rows - 1) / 2) ** 2 + (x - (columns - 1) / 2) ** 2 > (min(rows, columns) / 2) ** 2


def _put_pixels(header: Dataset, stored: np.ndarray, storage: Storage) -> None:
    if storage.syntax == "jpeg_lossless":
        compress_lossless(header, stored)
    else:
        header.PixelData = stored.tobytes()


def write_mask(file: Path, label: np.ndarray, grid: Grid) -> None:
    """Write labels (z, y, x), z cranial to caudal, as the competition stores them: axes right, anterior, superior."""
    array = np.ascontiguousarray(label[::-1, ::-1, ::-1].transpose(2, 1, 0))
    _, rows, columns = grid.shape
    x, y, z = (float(_text(v)) for v in grid.origin)
    low = np.array([x + (columns - 1) * grid.pixel_mm, y + (rows - 1) * grid.pixel_mm, z])
    low[2] -= (grid.shape[0] - 1) * grid.spacing_mm
    affine = np.diag([grid.pixel_mm, grid.pixel_mm, grid.spacing_mm, 1.0])
    affine[:3, 3] = -low[0], -low[1], low[2]
    with atomic(file) as temporary:
        temporary.write_bytes(_nifti_header(array.shape, affine) + array.tobytes(order="F"))


def _nifti_header(shape: tuple[int, ...], affine: np.ndarray) -> bytes:
    """A NIfTI-1 header for uint8 with the affine as its sform; 352 bytes, so that no library is needed to write one."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *shape, 1, 1, 1, 1)
    struct.pack_into("<hh", header, 70, 2, 8)
    struct.pack_into("<8f", header, 76, 1.0, *np.diag(affine)[:3], 0, 0, 0, 0)
    struct.pack_into("<fff", header, 108, 352.0, 1.0, 0.0)
    header[123] = 2
    struct.pack_into("<hh", header, 252, 0, 1)
    struct.pack_into("<12f", header, 280, *affine[:3].ravel())
    header[344:348] = b"n+1\0"
    return bytes(header)


def _text(value: float) -> str:
    """A decimal string of at most 16 characters."""
    return f"{value:.6f}"


def _header(plan: StudyPlan, grid: Grid, thickness_mm: float) -> Dataset:
    storage = plan.storage
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = UID(plan.uid)
    meta.TransferSyntaxUID = SYNTAXES[storage.syntax]
    header = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    header.SOPClassUID = CTImageStorage
    header.SOPInstanceUID = plan.uid
    header.Modality = "CT"
    header.SliceThickness = _text(thickness_mm)
    header.StudyInstanceUID = plan.uid
    header.SeriesInstanceUID = f"{plan.uid}.1"
    header.InstanceNumber = 0
    header.ImagePositionPatient = ["0", "0", "0"]
    header.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = "MONOCHROME1" if storage.inverted else "MONOCHROME2"
    header.Rows, header.Columns = grid.shape[1:]
    header.PixelSpacing = [_text(grid.pixel_mm)] * 2
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit = 15
    header.PixelRepresentation = int(storage.signed)
    if storage.padding == DECLARED_PADDING:
        header.PixelPaddingValue = storage.padding
    header.WindowCenter, header.WindowWidth = "400", "1800"
    header.RescaleIntercept, header.RescaleSlope = str(storage.intercept_hu), "1"
    return header
