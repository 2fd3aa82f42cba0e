import numpy as np
import pydicom
import pytest
from conftest import slice_dataset
from pydicom.encaps import get_frame
from transfer_syntaxes import COMPRESSED, save_as

from cspine.data.codestream import HEAD_BYTES, frame_size


@pytest.mark.parametrize("name", ["jpeg_lossless", "jpeg_lossless_sv1", "jpeg_ls", "jpeg_2000"])
def test_the_size_is_that_of_the_frame_whatever_the_header_says(tmp_path, name):
    dataset = slice_dataset(np.zeros((33, 70), np.int16), 0, 1)
    file = save_as(dataset, tmp_path / "s.dcm", COMPRESSED[name])
    frame = get_frame(pydicom.dcmread(file).PixelData, 0, number_of_frames=1)
    assert frame_size(frame[:HEAD_BYTES]) == (33, 70)
    # Fill bytes before a marker, boxes before a JPEG 2000 code stream.
    other = frame[:2] + b"\xff" + frame[2:] if name != "jpeg_2000" else bytes(8) + b"jP  " + frame
    assert frame_size(other[:HEAD_BYTES]) == (33, 70)


@pytest.mark.parametrize("head", [b"", b"\xff\xd8", b"\xff\xd8\xff\xc3\x00", b"\xff\x4f\xff\x51\x00", b"no picture"])
def test_bytes_that_do_not_tell_give_none(head):
    assert frame_size(head) is None
