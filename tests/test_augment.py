"""Each transform can be switched off, follows from the seed, and treats all channels alike."""

from dataclasses import fields, replace

import numpy as np
import pytest

from cspine.config import Augment
from cspine.data.augment import Augmenter

OFF = Augment(**{item.name: 0.0 for item in fields(Augment)})
IMAGE = np.random.default_rng(0).integers(0, 255, (48, 48, 1), np.uint8).repeat(3, axis=2)


def test_all_off_changes_nothing() -> None:
    assert np.array_equal(Augmenter(OFF)(IMAGE, 1), IMAGE)


@pytest.mark.parametrize("name", [item.name for item in fields(Augment)])
def test_each_switch_does_something_and_equal_seeds_the_same(name: str) -> None:
    strength = {"rotate_deg": 20.0, "horizontal_flip": 1.0, "vertical_flip": 1.0, "blur": 1.0, "noise": 1.0}
    augment = Augmenter(replace(OFF, **{name: strength.get(name, 0.3)}))
    first, again = augment(IMAGE, 7), augment(IMAGE, 7)
    assert first.shape == IMAGE.shape
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, IMAGE)


def test_flips_are_exact() -> None:
    assert np.array_equal(Augmenter(replace(OFF, horizontal_flip=1.0))(IMAGE, 0), IMAGE[:, ::-1])
    assert np.array_equal(Augmenter(replace(OFF, vertical_flip=1.0))(IMAGE, 0), IMAGE[::-1])


def test_geometry_is_one_draw_for_all_channels() -> None:
    augment = Augmenter(replace(OFF, rotate_deg=20.0, shift=0.2, scale=0.2))
    for seed in range(5):
        moved = augment(IMAGE, seed)
        assert np.array_equal(moved[..., 0], moved[..., 2])
