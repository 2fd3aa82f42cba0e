import base64
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from cspine.report.encode import code_hu, hu_to_codes, pack, pack_surface
from cspine.report.surfaces import Surface


@given(arrays(np.uint8, array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=7)))
def test_voxels_come_back_as_the_viewer_unpacks_them(values):
    raw = np.frombuffer(zlib.decompress(base64.b64decode(pack(values))), np.uint8).reshape(values.shape)
    assert np.array_equal(np.cumsum(raw, axis=-1, dtype=np.uint8), values)


@given(st.integers(-32768, 32767))
def test_hu_are_kept_to_half_a_step(hu):
    code, table = int(hu_to_codes(np.array(hu, np.int16))), code_hu()
    told = min(max(hu, -1024), 2200)
    half = 3 if -200 <= told <= 280 else 9 if told > 280 else 18
    assert abs(table[code] - told) <= half
    assert len(table) == 256


def test_surfaces_are_kept_to_a_128th_of_a_voxel():
    rng = np.random.default_rng(0)
    vertices = rng.uniform(-2, 300, (500, 3)).astype(np.float32)
    faces = rng.integers(0, 500, (900, 3)).astype(np.int32)
    raw = zlib.decompress(base64.b64decode(pack_surface(Surface(vertices, faces))))
    count = int(np.frombuffer(raw[:4], "<u4")[0])
    back = np.frombuffer(raw[4 : 4 + 6 * count], "<u2").reshape(-1, 3) / 64 - 4
    assert np.abs(back[:, ::-1] - vertices).max() <= 1 / 128 + 1e-5
    assert np.array_equal(np.frombuffer(raw[4 + 6 * count :], "<u2").reshape(-1, 3), faces)
    with pytest.raises(ValueError, match="65535"):
        pack_surface(Surface(np.zeros((70000, 3), np.float32), faces))
