"""What the 3-D U-Nets share: decoder, head, and the way from voxels to slices.

The finest stage has half the resolution of the input and the head doubles it again: a full-resolution stage would cost
eight times as much as all the others together, and vertebrae are large against a voxel.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import interpolate

# A level is on a plane as clearly as its so many clearest voxels say, on average: one alone may be noise.
CLEAREST_VOXELS = 4
# What a voxel says of a level before anything is learned: one in 150.
RARE_LOGIT = -5.0


class UNet3d(nn.Module):
    """Maps uint8 windows (n, channels, z, y, x) to logits of the levels.

    In training of every voxel, (n, outputs, z, y, x); in evaluation of every plane, (n, outputs, z), because voxels of
    thousands of studies would fill the memory. `segment` gives the voxels in either mode.
    """

    def __init__(self, encoder: nn.Module, channels: Sequence[int], outputs: int, width: int, dropout: float) -> None:
        """`encoder` maps float windows to features of 1/2, 1/4, ... of their sides, with so many `channels`."""
        super().__init__()
        self.encoder = encoder
        widths = [width * 2**stage for stage in range(len(channels))]
        self.deepest = convolutions(channels[-1], widths[-1])
        self.decoder = nn.ModuleList(
            convolutions(widths[stage + 1] + channels[stage], widths[stage]) for stage in range(len(channels) - 1)
        )
        last = nn.ConvTranspose3d(widths[0], outputs, 2, stride=2)
        # Few voxels belong to a level; from one half, hundreds of steps would go into learning that.
        nn.init.constant_(last.bias, RARE_LOGIT)  # type: ignore[arg-type]
        self.head = nn.Sequential(nn.Dropout3d(dropout), last)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.segment(images)
        return logits if self.training else plane_logits(logits)

    def segment(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of every voxel, (n, outputs, z, y, x)."""
        features = self.encoder(images.float().mul(2 / 255).sub(1))
        decoded = self.deepest(features[-1])
        for stage in reversed(range(len(self.decoder))):
            finer = features[stage]
            decoded = interpolate(decoded, finer.shape[2:], mode="trilinear")
            decoded = self.decoder[stage](torch.cat([decoded, finer], dim=1))
        return self.head(decoded)


def plane_logits(logits: torch.Tensor) -> torch.Tensor:
    """(n, outputs, z) from the voxels' (n, outputs, z, y, x): the mean of each plane's clearest."""
    return logits.flatten(3).topk(CLEAREST_VOXELS, dim=-1).values.mean(dim=-1)


def convolutions(channels: int, width: int, stride: int = 1) -> nn.Sequential:
    """Two 3x3x3 convolutions, each with instance norm and leaky ReLU (the block of nnU-Net, Isensee et al. 2021)."""
    layers: list[Any] = []
    for number, before in enumerate((channels, width)):
        layers += [
            nn.Conv3d(before, width, 3, stride=stride if number == 0 else 1, padding=1, bias=False),
            nn.InstanceNorm3d(width, affine=True),
            nn.LeakyReLU(0.01, inplace=True),
        ]
    return nn.Sequential(*layers)
