"""A 3-D U-Net from scratch, small enough to train on two CPU cores (Cicek et al. 2016, with nnU-Net's blocks)."""

import torch
from torch import nn

from cspine.config import Model
from cspine.errors import UserError
from cspine.models.backbones import refuse_cells
from cspine.models.mirror import refuse_mirror
from cspine.models.unet3d import UNet3d, convolutions

STAGES = 4  # sides of 1/2 to 1/16: windows are multiples of 16


class PlainEncoder(nn.Module):
    """Maps float windows (n, channels, z, y, x) to the features of its stages, each half the size of the one before."""

    def __init__(self, channels: int, widths: list[int]) -> None:
        super().__init__()
        before = [channels, *widths[:-1]]
        self.stages = nn.ModuleList(convolutions(*pair, stride=2) for pair in zip(before, widths, strict=True))

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        features = []
        for stage in self.stages:
            images = stage(images)
            features.append(images)
        return features

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:  # noqa: ARG002
        """The order of the layers, told as timm's encoders tell it."""
        return {"stages": r"^stages\.(\d+)"}


def plain_encoder(settings: Model, channels: int) -> tuple[PlainEncoder, list[int]]:
    """The encoder, its finest stage `model.width` wide, and the channels of its stages.

    Raises UserError for `model.drop_path` and `model.cells`.
    """
    refuse_cells(settings)
    if settings.drop_path:
        raise UserError(
            f"model.drop_path={settings.drop_path}: a plain encoder has no paths to drop; set it to 0, or take a timm "
            "backbone inflated"
        )
    widths = [settings.width * 2**stage for stage in range(STAGES)]
    return PlainEncoder(channels, widths), widths


def build(settings: Model, channels: int, outputs: int) -> UNet3d:
    """The model for windows of so many channels, its finest stage `model.width` wide; `model.backbone` is not used."""
    refuse_mirror(settings, "")
    encoder, widths = plain_encoder(settings, channels)
    return UNet3d(encoder, widths, outputs, settings.width, settings.dropout)
