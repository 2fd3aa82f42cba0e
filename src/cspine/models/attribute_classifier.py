"""Slice and its attributes in, logits out: the encoder's features beside those of a small network (phase 2b)."""

import torch
from torch import nn

from cspine.config import Model
from cspine.data.attributes import ATTRIBUTES
from cspine.errors import UserError
from cspine.models.backbones import feature_count
from cspine.models.cells import create_encoder
from cspine.models.mirror import mean_with_mirror
from cspine.models.slice_classifier import SliceClassifier

HIDDEN = 32


class AttributeClassifier(SliceClassifier):
    """Maps uint8 images (n, channels, y, x) and attributes (n, count) to logits (n, outputs)."""

    def __init__(self, backbone: nn.Module, features: int, outputs: int, settings: Model, count: int) -> None:
        super().__init__(backbone, features + HIDDEN, outputs, settings)
        self.attributes = nn.Sequential(nn.Linear(count, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU())

    def forward(self, images: torch.Tensor, attributes: torch.Tensor | None = None) -> torch.Tensor:
        if attributes is None:
            raise UserError(
                "model.name=attribute_classifier needs task=vertebra/attributes, and presence_classifier needs "
                "task=fracture/multimodal: other tasks give a model nothing beside the image"
            )
        others = self.attributes(attributes)

        def judge(images: torch.Tensor) -> torch.Tensor:
            return self.head(torch.cat([self.features(images), others], dim=1))

        return mean_with_mirror(judge, images, self.flip_at_test and not self.training)


def build(settings: Model, channels: int, outputs: int) -> AttributeClassifier:
    """The model for images of `channels` (slices times windows) and `outputs` logits."""
    return build_for(len(ATTRIBUTES), settings, channels, outputs)


def build_for(count: int, settings: Model, channels: int, outputs: int) -> AttributeClassifier:
    """The same for another `count` of attributes."""
    backbone = create_encoder(settings, channels)
    return AttributeClassifier(backbone, feature_count(backbone), outputs, settings, count)
