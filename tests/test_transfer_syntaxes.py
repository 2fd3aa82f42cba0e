"""Every transfer syntax, signed and unsigned, with and without dicomsdl, against the truth and against SimpleITK."""

import numpy as np
import pytest
import SimpleITK
from conftest import body_hu, slice_dataset
from transfer_syntaxes import SYNTAXES, save_as

from cspine.data.header import read_header
from cspine.data.pixels import read_hu


def stored_slice(signed: bool, bits: int) -> np.ndarray:
    """Stored values: a body, noise in it, and the extremes that the bits allow."""
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    values = body_hu(1, 40, 44)[0].astype(np.int64) + (0 if signed else 1024)
    values += np.random.default_rng(0).integers(-20, 21, values.shape)
    values[0, :4] = low, high, low + 1, high - 1
    return np.clip(values, low, high)


@pytest.mark.parametrize("name", SYNTAXES)
@pytest.mark.parametrize(("signed", "bits"), [(True, 16), (False, 16), (False, 12)])
@pytest.mark.parametrize(("slope", "intercept"), [(1, -1024), (1, 0), (0.5, -1000.5)])
def test_every_encoding_gives_the_same_hu(tmp_path, name, signed, bits, slope, intercept):
    stored = stored_slice(signed, bits)
    dataset = slice_dataset(
        body_hu(1, 40, 44)[0],
        12.5,
        1,
        PixelData=stored.astype("<i2" if signed else "<u2").tobytes(),
        PixelRepresentation=int(signed),
        BitsStored=bits,
        HighBit=bits - 1,
        RescaleSlope=slope,
        RescaleIntercept=intercept,
    )
    file = save_as(dataset, tmp_path / "s.dcm", SYNTAXES[name])
    header = read_header(file)
    assert header.encoding.syntax == SYNTAXES[name]
    truth = np.clip(np.rint(stored * slope + intercept), -1024, 4095)
    for fast in (True, False):
        assert np.array_equal(read_hu(file, header.encoding, fast), truth), fast
    other = SimpleITK.ReadImage(str(file))
    assert np.array_equal(np.clip(np.rint(SimpleITK.GetArrayFromImage(other)[0]), -1024, 4095), truth)
    assert other.GetOrigin() == header.position_mm == (-30.0, -40.0, 12.5)
