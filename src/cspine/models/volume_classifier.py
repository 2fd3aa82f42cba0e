"""A volume in, a logit for each thing to judge out: a 3-D encoder, and for each output attention over where to look."""

import torch
from torch import nn
from torch.nn.functional import interpolate

from cspine.config import Model
from cspine.errors import UserError
from cspine.models.inflated_unet import inflated_encoder
from cspine.models.mirror import mean_with_mirror
from cspine.models.plain_unet import plain_encoder


class VolumeClassifier(nn.Module):
    """Maps uint8 volumes (n, channels, z, y, x) to logits (n, outputs).

    The logits of an output are judged on the two coarsest stages, at the finer one's places, and averaged there with
    weights that are learned for that output: a fracture is small beside the volume, and each level has its own place.
    """

    def __init__(self, encoder: nn.Module, features: int, outputs: int, settings: Model) -> None:
        """`encoder` maps float volumes to the features of its stages; the last two have `features` channels in all."""
        super().__init__()
        self.encoder, self.flip_at_test = encoder, settings.flip_at_test
        self.dropout = nn.Dropout3d(settings.dropout)
        self.judge = nn.Conv3d(features, outputs, 1)
        self.attention = nn.Conv3d(features, outputs, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return mean_with_mirror(self._logits, images, self.flip_at_test and not self.training)

    def _logits(self, images: torch.Tensor) -> torch.Tensor:
        finer, coarser = self.encoder(images.float().mul(2 / 255).sub(1))[-2:]
        around = interpolate(coarser, finer.shape[2:], mode="trilinear")
        features = self.dropout(torch.cat([finer, around], dim=1))
        weights = self.attention(features).flatten(2).float().softmax(dim=-1)
        return (weights * self.judge(features).flatten(2).float()).sum(dim=-1)


def build(settings: Model, channels: int, outputs: int) -> VolumeClassifier:
    """The model for volumes of so many channels, on the encoder that `model.encoder` names.

    Raises UserError for a backbone that cannot be inflated, and for pre-trained weights without one.
    """
    if settings.encoder == "inflated":
        encoder, widths = inflated_encoder(settings, channels)
        return VolumeClassifier(encoder, sum(widths[-2:]), outputs, settings)
    if settings.pretrained is not None:
        raise UserError(
            f"model.pretrained={settings.pretrained}: a plain encoder starts from scratch; set model.pretrained=null "
            "or model.encoder=inflated"
        )
    plain, widths = plain_encoder(settings, channels)
    return VolumeClassifier(plain, sum(widths[-2:]), outputs, settings)
