"""A level's images stacked to a volume, its mask among their channels, through a volume classifier."""

import torch
from torch import nn

from cspine.config import Model
from cspine.models import volume_classifier


class LevelVolumeClassifier(nn.Module):
    """Maps uint8 levels (n, images, channels, y, x), cranial first, to logits (n, outputs)."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(images.transpose(1, 2))


def build(settings: Model, channels: int, outputs: int) -> LevelVolumeClassifier:
    """The model for images of `channels` and, besides, the level's mask."""
    return LevelVolumeClassifier(volume_classifier.build(settings, channels + 1, outputs))
