"""Mixup mixes images and targets with one weight that follows from the seed."""

import numpy as np
import pytest
import torch

from cspine.data.mixup import draw_partner, mix


def test_images_are_rounded_and_targets_linear() -> None:
    one = {"image": torch.tensor([[0, 100, 255]], dtype=torch.uint8), "target": torch.tensor([1.0, 0.0])}
    other = {"image": torch.tensor([[10, 103, 255]], dtype=torch.uint8), "target": torch.tensor([0.0, 1.0])}
    mixed = mix(one, other, 0.25)
    assert mixed["image"].dtype == torch.uint8
    assert mixed["image"].tolist() == [[2, 101, 255]]
    assert mixed["target"].tolist() == [0.75, 0.25]


def test_the_partner_follows_from_the_seed_and_never_outweighs() -> None:
    drawn = [draw_partner(seed, 0.4, 10) for seed in range(300)]
    assert drawn == [draw_partner(seed, 0.4, 10) for seed in range(300)]
    assert {partner.position for partner in drawn} == set(range(10))
    weights = np.array([partner.weight for partner in drawn])
    assert weights.max() <= 0.5
    assert len(np.unique(weights)) == 300


@pytest.mark.parametrize(("alpha", "low", "high"), [(0.1, 0.0, 0.1), (10.0, 0.4, 0.5)])
def test_a_greater_alpha_mixes_more(alpha: float, low: float, high: float) -> None:
    assert low <= np.median([draw_partner(seed, alpha, 3).weight for seed in range(300)]) <= high
