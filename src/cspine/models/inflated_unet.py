"""A 3-D U-Net whose encoder is a 2-D timm network inflated to 3-D, pre-trained weights included."""

from typing import Any

import torch
from torch import nn

from cspine.config import Model
from cspine.errors import UserError
from cspine.models.backbones import create_backbone
from cspine.models.inflate import inflate
from cspine.models.mirror import refuse_mirror
from cspine.models.unet3d import UNet3d

PROBE_PX = 64


class InflatedEncoder(nn.Module):
    """Maps float windows (n, channels, z, y, x) to features, the last of each resolution, finest first."""

    def __init__(self, network: Any, indices: list[int]) -> None:
        super().__init__()
        self.network, self.indices = network, indices

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return self.network.forward_intermediates(images, indices=self.indices, intermediates_only=True)


def build(settings: Model, channels: int, outputs: int) -> UNet3d:
    """The model for windows of so many channels. Raises UserError for a backbone that cannot be inflated."""
    refuse_mirror(settings, "")
    encoder, widths = inflated_encoder(settings, channels)
    return UNet3d(encoder, widths, outputs, settings.width, settings.dropout)


def inflated_encoder(settings: Model, channels: int) -> tuple[InflatedEncoder, list[int]]:
    """`model.backbone` as an encoder of volumes, and the channels of its stages. Raises UserError where it is none."""
    network: Any = create_backbone(settings, channels)
    indices, widths = _stages(network, settings.backbone, channels)
    network.prune_intermediate_layers(indices, prune_head=True)

    def features(model: Any, images: torch.Tensor) -> list[torch.Tensor]:
        return model.forward_intermediates(images, indices=indices, intermediates_only=True)

    return InflatedEncoder(inflate(network, features, settings.inflate, settings.inflate_depth), indices), widths


def _stages(network: Any, name: str, channels: int) -> tuple[list[int], list[int]]:
    """Of a 2-D encoder the stages to take, one for each of 1/2, 1/4, ... of the input's side, and their channels."""
    try:
        with torch.no_grad():
            probe = torch.zeros(1, channels, PROBE_PX, PROBE_PX)
            features = network.eval().forward_intermediates(probe, intermediates_only=True)
    except (AttributeError, RuntimeError, AssertionError) as error:
        raise UserError(
            f"model.backbone={name}: gives no features of its stages ({error}); take one such as resnet18"
        ) from error
    network.train()
    last = {feature.shape[-1]: index for index, feature in enumerate(features)}
    if sorted(last, reverse=True) != [PROBE_PX >> step for step in range(1, len(last) + 1)]:
        raise UserError(
            f"model.backbone={name}: its stages have sides of {sorted(last, reverse=True)} on an image of {PROBE_PX}, "
            "and a U-Net needs each half of the one before; take one such as resnet18"
        )
    indices = sorted(last.values())
    return indices, [features[index].shape[1] for index in indices]
