"""The same slice in every transfer syntax for which an encoder is installed."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileDataset
from pydicom.uid import UID, RLELossless

NATIVE = {
    "explicit": UID("1.2.840.10008.1.2.1"),
    "implicit": UID("1.2.840.10008.1.2"),
    "big_endian": UID("1.2.840.10008.1.2.2"),
    "deflated": UID("1.2.840.10008.1.2.1.99"),
}
COMPRESSED = {
    "rle": UID("1.2.840.10008.1.2.5"),
    "jpeg_lossless": UID("1.2.840.10008.1.2.4.57"),
    "jpeg_lossless_sv1": UID("1.2.840.10008.1.2.4.70"),
    "jpeg_ls": UID("1.2.840.10008.1.2.4.80"),
    "jpeg_2000": UID("1.2.840.10008.1.2.4.90"),
}
SYNTAXES = {**NATIVE, **COMPRESSED}


def save_as(dataset: FileDataset, file: Path, syntax: UID) -> Path:
    """Write an explicit little endian slice in another transfer syntax, without loss."""
    if syntax in NATIVE.values():
        dataset.file_meta.TransferSyntaxUID = syntax
        if not syntax.is_little_endian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        pydicom.dcmwrite(file, dataset, little_endian=syntax.is_little_endian, implicit_vr=syntax.is_implicit_VR)
    elif syntax == RLELossless:
        dataset.compress(syntax)
        dataset.save_as(file)
    else:
        dataset.save_as(file)
        _compress(file, syntax)
    return file


def _compress(file: Path, syntax: UID) -> None:
    import gdcm

    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(file))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
    change.SetInput(reader.GetImage())
    assert change.Change(), f"gdcm cannot write {syntax.name}"
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(file))
    assert writer.Write()
