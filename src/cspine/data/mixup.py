"""Mixup: two samples and their targets in one (Zhang et al., ICLR 2018). Everything follows from the sample's seed."""

from dataclasses import dataclass

import numpy as np
import torch

from cspine.config import Augment
from cspine.errors import UserError


def refuse_mixup(augment: Augment, name: str) -> None:
    """Raises UserError where the config of a 3-D model, which is trained on windows as they are, asks for mixup."""
    if augment.mixup:
        raise UserError(f"{name}: windows of a volume are not mixed; set augment.mixup=0")


@dataclass(frozen=True)
class Partner:
    """What a sample is mixed with: another's position, the seed of its augmentation, and its weight."""

    position: int
    seed: int
    weight: float


def draw_partner(seed: int, alpha: float, count: int) -> Partner:
    """One of `count` samples; the smaller of the two Beta(alpha, alpha) weights, so that a sample outweighs it."""
    rng = np.random.default_rng([seed, 2])
    weight = rng.beta(alpha, alpha)
    return Partner(int(rng.integers(count)), int(rng.integers(2**32)), float(min(weight, 1 - weight)))


def mix(sample: dict[str, torch.Tensor], other: dict[str, torch.Tensor], weight: float) -> dict[str, torch.Tensor]:
    """Both linearly, `weight` of the other; uint8 images are rounded. Keys and shapes must agree."""
    mixed = {}
    for name, value in sample.items():
        both = torch.lerp(value.float(), other[name].float(), weight)
        mixed[name] = both.round().to(torch.uint8) if value.dtype == torch.uint8 else both
    return mixed
