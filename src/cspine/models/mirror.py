"""What a model says of an image and of its mirror image, in one."""

from collections.abc import Callable

import torch

from cspine.config import Model
from cspine.errors import UserError


def mean_with_mirror(judge: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, wanted: bool) -> torch.Tensor:
    """The logits of images whose last axis is x; where `wanted`, the mean of theirs and their mirror images'."""
    logits = judge(images)
    return (logits + judge(images.flip(-1))) / 2 if wanted else logits


def refuse_mirror(settings: Model, instead: str) -> None:
    """Raises UserError where the config asks a model to flip that does not by this key."""
    if settings.flip_at_test:
        raise UserError(f"model.flip_at_test=true: {settings.name} does not flip by this key; set it to false{instead}")
