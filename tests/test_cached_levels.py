"""The mask in the cache lies on the voxels of the pixels, survives damage, and is absent where there is none."""

import numpy as np
import pytest
from conftest import TinyDataset, damage, write_mask
from hypothesis import given
from hypothesis import strategies as st
from test_cache import build, in_process  # noqa: F401 - a fixture

from cspine.data.cache import build_cache, levels_file, open_study
from cspine.data.masks import cut_mask
from cspine.data.preprocess import Crop
from cspine.errors import UserError

pytestmark = pytest.mark.usefixtures("in_process")


def test_the_levels_lie_where_the_bone_does(tiny: TinyDataset) -> None:
    """The labels of the tiny data mark its bone, which alone is bright."""
    build(tiny)
    study = open_study(tiny.config, tiny.uids[1])
    assert study.levels.shape == (8, 24, 24)
    assert study.levels.dtype == np.uint8
    assert study.presence is not None
    for z in range(5):
        assert np.array_equal(study.levels[z] > 0, study.volume[z, 0] > 127)
        assert set(np.unique(study.levels[z])) == {0, study.presence[z].argmax() + 1}
    assert not study.levels[5:].any()  # T1 is none of ours


def test_without_a_mask_there_is_no_file_and_with_a_new_one_there_is(tiny: TinyDataset) -> None:
    build(tiny)
    plain = open_study(tiny.config, tiny.uids[0])
    assert not levels_file(plain.file).exists()
    with pytest.raises(UserError, match=r"missing or damaged.*prepare\.py --verify"):
        _ = plain.levels
    write_mask(tiny.mask(tiny.uids[0]), tiny.mask_labels())
    tiny.mask(tiny.uids[1]).unlink()
    assert build(tiny).done == 2
    assert open_study(tiny.config, tiny.uids[0]).levels.any()
    assert not levels_file(open_study(tiny.config, tiny.uids[1]).file).exists()


@pytest.mark.parametrize("how", ["gone", "cut", "flipped"])
def test_damaged_levels_are_made_again(tiny: TinyDataset, how: str) -> None:
    build(tiny)
    study = open_study(tiny.config, tiny.uids[1])
    whole, file = study.levels, levels_file(study.file)
    if how == "gone":
        file.unlink()
    elif how == "cut":
        damage(file, 0.6)
    else:
        changed = whole.copy()
        changed[0, 0, 0] = 5
        np.savez_compressed(file, levels=changed)
    summary = build_cache(tiny.config, "train", 1, progress=False, verify=how != "gone")
    assert (summary.done, summary.kept) == (1, 5)
    assert np.array_equal(study.levels, whole)


@given(
    top=st.integers(-20, 20),
    left=st.integers(-20, 20),
    height=st.integers(5, 60),
    width=st.integers(5, 60),
    size=st.integers(4, 40),
)
def test_a_cut_takes_the_nearest_label_and_nothing_from_beyond(top, left, height, width, size) -> None:
    labels = np.arange(1, 7 * 30 * 20 + 1).reshape(7, 30, 20) % 251 + 1
    crop = Crop(top, left, height, width, size)
    cut = cut_mask(labels.astype(np.uint8), crop)
    for y, x in ((0, 0), (size - 1, 1), (size // 2, size // 3)):
        row, column = (int(np.rint(value)) for value in crop.to_original(y, x))
        inside = 0 <= row < 30 and 0 <= column < 20
        assert cut[:, y, x].tolist() == (labels[:, row, column].tolist() if inside else [0] * 7)
