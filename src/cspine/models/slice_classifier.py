"""Slice in, logits out: a 2-D encoder, dropout and one linear layer (the method of README, phases 2a and 3a)."""

import torch
from torch import nn

from cspine.config import Model
from cspine.models.backbones import feature_count
from cspine.models.cells import create_encoder
from cspine.models.mirror import mean_with_mirror


class SliceClassifier(nn.Module):
    """Maps uint8 images (n, channels, y, x), windowed to 0..255, to logits (n, outputs)."""

    def __init__(self, backbone: nn.Module, features: int, outputs: int, settings: Model) -> None:
        super().__init__()
        self.backbone, self.flip_at_test = backbone, settings.flip_at_test
        self.head = nn.Sequential(nn.Dropout(settings.dropout), nn.Linear(features, outputs))

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """The encoder's feature vectors (n, features)."""
        return self.backbone(images.float().mul(2 / 255).sub(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return mean_with_mirror(self._judge, images, self.flip_at_test and not self.training)

    def _judge(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(images))


def build(settings: Model, channels: int, outputs: int) -> SliceClassifier:
    """The model for images of `channels` (slices times windows) and `outputs` logits."""
    backbone = create_encoder(settings, channels)
    return SliceClassifier(backbone, feature_count(backbone), outputs, settings)
