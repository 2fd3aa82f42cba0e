"""Slice in, logits out: a 2-D encoder, dropout and one linear layer (the method of README, phases 2a and 3a)."""

from typing import Any

import torch
from torch import nn

from cspine.config import Model
from cspine.models.backbones import create_backbone


class SliceClassifier(nn.Module):
    """Maps uint8 images (n, channels, y, x), windowed to 0..255, to logits (n, outputs)."""

    def __init__(self, backbone: nn.Module, features: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(features, outputs))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scaled = images.float().mul(2 / 255).sub(1)
        return self.head(self.backbone(scaled))


def build(settings: Model, channels: int, outputs: int) -> SliceClassifier:
    """The model for images of `channels` (slices times windows) and `outputs` logits."""
    backbone = create_backbone(settings, channels)
    # Some timm models project their features once more after pooling; they say so by head_hidden_size.
    features: Any = getattr(backbone, "head_hidden_size", None) or backbone.num_features
    return SliceClassifier(backbone, features, outputs, settings.dropout)
