"""Copies of studies for benchmarks: lossless JPEG as some of the competition's files are, and very long ones."""

import shutil
from pathlib import Path

import pydicom
from pydicom.uid import JPEGLosslessSV1

from cspine.errors import UserError


def lossless_copy(folder: Path, target: Path) -> Path:
    """A study's files as JPEG Lossless SV1."""
    import gdcm

    target.mkdir(parents=True, exist_ok=True)
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        reader = gdcm.ImageReader()
        reader.SetFileName(str(file))
        if not reader.Read():
            raise UserError(f"{file}: gdcm cannot read it; name a folder that holds CT slices only")
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        change.SetInput(reader.GetImage())
        if not change.Change():
            raise UserError(f"{file}: gdcm cannot compress it")
        writer = gdcm.ImageWriter()
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.SetFileName(str(target / file.name))
        if not writer.Write():
            raise UserError(f"{target / file.name}: cannot be written; is the disk full?")
    written = pydicom.dcmread(next(target.iterdir()), stop_before_pixels=True).file_meta.TransferSyntaxUID
    if written != JPEGLosslessSV1:
        raise UserError(f"gdcm wrote {written.name} where JPEG Lossless SV1 was asked for")
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
