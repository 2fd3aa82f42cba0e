"""Copies of studies for benchmarks: lossless JPEG as some of the competition's files are, and very long ones."""

import shutil
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

from cspine.data.lossless import compress_lossless
from cspine.errors import UserError


def lossless_copy(folder: Path, target: Path) -> Path:
    """A study's files as JPEG Lossless SV1."""
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        try:
            dataset = pydicom.dcmread(file)
            stored = dataset.pixel_array
        except (InvalidDicomError, AttributeError) as error:
            raise UserError(f"{file}: not a CT slice ({error}); name a folder that holds CT slices only") from error
        compress_lossless(dataset, stored)
        dataset.save_as(target / file.name)
    return target


def long_copy(folder: Path, target: Path, slices: int) -> Path:
    """A study of so many slices, 0.3 mm apart, from the slices of another, again and again."""
    sources = sorted(path for path in folder.iterdir() if path.is_file())
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for index in range(slices):
        dataset = pydicom.dcmread(sources[index % len(sources)])
        x, y, _ = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, -0.3 * index]
        dataset.InstanceNumber = index + 1
        dataset.save_as(target / f"{index + 1}.dcm")
    return target
