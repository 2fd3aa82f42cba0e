"""Pixels as JPEG Lossless SV1 (1.2.840.10008.1.2.4.70), the compressed one of the competition's transfer syntaxes."""

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLosslessSV1


def compress_lossless(dataset: Dataset, stored: np.ndarray) -> None:
    """Put int16 or uint16 pixels (rows, columns) into a dataset as JPEG Lossless SV1; about 13 ms for 512 x 512."""
    dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    dataset.PixelData = encapsulate([_code_stream(stored)])
    dataset["PixelData"].VR = "OB"


def _code_stream(stored: np.ndarray) -> bytes:
    """Only the pixels go through gdcm: its own files carry dates, made-up UIDs and its name."""
    import gdcm

    owner = gdcm.ImageWriter()  # an image that belongs to nobody is freed twice, which ends the process
    image = owner.GetImage()
    image.SetNumberOfDimensions(2)
    for axis, size in enumerate(reversed(stored.shape)):
        image.SetDimension(axis, size)
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, 16, 15, int(stored.dtype.kind == "i")))
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ExplicitVRLittleEndian))
    pixels = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    pixels.SetByteStringValue(stored.astype("<i2" if stored.dtype.kind == "i" else "<u2").tobytes())
    image.SetDataElement(pixels)
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(image)
    if not change.Change():
        raise RuntimeError(f"gdcm cannot compress {stored.dtype} pixels of shape {stored.shape}")
    fragment = change.GetOutput().GetDataElement().GetSequenceOfFragments().GetFragment(0)
    return fragment.GetByteValue().GetBuffer().encode("utf-8", "surrogateescape")
