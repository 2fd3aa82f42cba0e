"""DICOM files compressed as JPEG Lossless, process 14, first-order prediction: as part of the competition's are."""

from pathlib import Path

from cspine.errors import UserError


def compress_file(source: Path, target: Path) -> None:
    """Write a DICOM file as JPEG Lossless SV1 (1.2.840.10008.1.2.4.70); the two may be the same file."""
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(str(source))
    if not reader.Read():
        raise UserError(f"{source}: gdcm cannot read it; name a folder that holds CT slices only")
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    if not change.Change():
        raise UserError(f"{source}: gdcm cannot compress it")
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(target))
    if not writer.Write():
        raise UserError(f"{target}: cannot be written; is the disk full?")
