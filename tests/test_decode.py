"""A study for inference is what the cache holds of it, and a bad one comes with its reason."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import TinyDataset, damage

from cspine.data.cache import build_cache, open_study
from cspine.data.decode import DecodeTask, decode_studies, decode_study


@pytest.mark.parametrize(
    "changes",
    [{}, {"windows": ("bone", "-50..100"), "mask": "kmeans", "denoise": "region_mean"}, {"mask": "threshold"}],
    ids=str,
)
def test_decoded_and_cached_pixels_are_the_same(tiny: TinyDataset, changes: dict) -> None:
    tiny.config = replace(tiny.config, preprocess=replace(tiny.config.preprocess, **changes))
    build_cache(tiny.config, "train", 1, progress=False)
    settings = (tiny.config.preprocess, replace(tiny.config.preprocess, size_px=16))
    tasks = [DecodeTask(uid, tiny.images(uid), settings) for uid in tiny.uids[:2]]
    found = {task.uid: study for task, study in decode_studies(tasks, 2)}
    assert sorted(found) == sorted(tiny.uids[:2])
    for uid, study in found.items():
        cached = open_study(tiny.config, uid)
        assert np.array_equal(study.volumes[settings[0]], cached.volume)
        assert study.volumes[settings[1]].shape == (8, len(settings[0].windows), 16, 16)
        assert study.geometry is not None
        assert np.array_equal(study.geometry.z_mm, cached.geometry.z_mm)


def test_a_bad_study_says_why(tiny: TinyDataset, tmp_path: Path) -> None:
    for file in tiny.images(tiny.uids[0]).iterdir():
        damage(file, 0.8)
    truncated = decode_study(DecodeTask("t", tiny.images(tiny.uids[0]), (tiny.config.preprocess,)))
    assert truncated.bad is not None
    assert "truncated" in truncated.bad
    assert len(truncated.skipped) == 8
    assert decode_study(DecodeTask("n", tmp_path / "nowhere", ())).bad == "no such folder"
