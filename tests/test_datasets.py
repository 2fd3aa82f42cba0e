"""Samples keep image, neighbours and target together, and an epoch draws what the settings say."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from cspine.config import Augment, Data
from cspine.data.datasets import SliceSamples
from cspine.data.geometry import Geometry

STILL = Augment(rotate_deg=0, shift_x=0, shift_y=0, scale=0, brightness=0, contrast=0)
SETTINGS = Data(image_size_px=16, neighbours=1, neighbour_step_mm=1.0)


@dataclass
class FakeStudy:
    """Slices whose grey value is 10 * study + index."""

    number: int
    count: int

    @property
    def volume(self) -> np.ndarray:
        values = 10 * self.number + np.arange(self.count, dtype=np.uint8)
        return np.broadcast_to(values[:, None, None, None], (self.count, 1, 16, 16)).copy()

    @property
    def geometry(self) -> Geometry:
        positions = np.column_stack([np.zeros((self.count, 2)), -np.arange(self.count, dtype=float)])
        directions = np.eye(3)
        return Geometry(np.arange(self.count), positions, directions[0], directions[1], (1.0, 1.0), 1.0)


def samples(settings: Data = SETTINGS, augment: Augment | None = None) -> SliceSamples:
    """Two studies of 5 and 4 slices, named in no particular order."""
    study, index = np.array([1, 0, 1, 0, 0]), np.array([2, 1, 0, 4, 3])
    targets = {"value": 10.0 * study + index}
    return SliceSamples([FakeStudy(0, 5), FakeStudy(1, 4)], study, index, settings, augment, targets)  # type: ignore[list-item]


def test_the_middle_channel_is_the_slice_and_its_target_travels_along() -> None:
    made = samples()
    for position in range(len(made)):
        sample = made[position, -1]
        assert sample["image"].shape == (3, 16, 16)
        assert float(sample["image"][1].float().mean()) == float(sample["value"])
    assert made[0, -1]["image"][:, 0, 0].tolist() == [11, 12, 13]


def test_augmentation_follows_from_the_seed_and_a_negative_one_leaves_it_out() -> None:
    made = samples(augment=Augment(brightness=0.5, contrast=0.5))
    plain, first, again = (made[0, seed]["image"] for seed in (-1, 3, 3))
    assert (plain == samples()[0, -1]["image"]).all()
    assert (first == again).all()
    assert any((made[0, seed]["image"] != plain).any() for seed in range(4))


@pytest.mark.parametrize(("limit", "expected"), [(None, 5), (1, 2), (2, 4), (9, 5)])
def test_an_epoch_draws_so_many_of_each_study_without_repeats(limit: int | None, expected: int) -> None:
    made = samples(replace(SETTINGS, slices_per_study=limit))
    drawn = made.draw(np.random.default_rng(0))
    assert len(drawn) == len(set(drawn.tolist())) == expected
    assert set(made.study[drawn]) == {0, 1}
    assert drawn.tolist() == made.draw(np.random.default_rng(0)).tolist()


def test_mixup_mixes_targets_as_it_mixes_images() -> None:
    made = samples(augment=replace(STILL, mixup=1.0))
    assert [made[0, 5][name].tolist() for name in ("image", "value")] == [
        made[0, 5][name].tolist() for name in ("image", "value")
    ]
    values = []
    for seed in range(30):
        sample = made[0, seed]
        # The grey value of the middle channel is the target, so it still is in the mix, but for rounding.
        assert float(sample["image"][1, 0, 0]) == pytest.approx(float(sample["value"]), abs=0.51)
        values.append(float(sample["value"]))
    assert len(set(values)) > 15  # the partner may be the sample itself
    assert float(made[0, -1]["value"]) == 12
    some = samples(augment=replace(STILL, mixup=1.0, share=0.5))
    assert some.augmenter is not None
    left = [seed for seed in range(30) if not some.augmenter.takes(seed)]
    assert 5 < len(left) < 25
    assert all(float(some[0, seed]["value"]) == 12 for seed in left)
