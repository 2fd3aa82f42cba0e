"""What detectors look at: the maps of any timm encoder at strides of 8, 16 and 32, mixed from coarse to fine.

Feature pyramids, Lin et al. 2017.
"""

from typing import Any

import torch
from torch import nn
from torchvision.ops import FeaturePyramidNetwork

from cspine.config import Model
from cspine.errors import UserError
from cspine.models.backbones import create_backbone

STRIDES = (8, 16, 32)
WIDTH = 64


class Pyramid(nn.Module):
    """Maps images (n, channels, y, x) to maps by the name of their stride, each WIDTH channels deep."""

    def __init__(self, settings: Model, channels: int) -> None:
        super().__init__()
        self.backbone = create_backbone(settings, channels)
        info: Any = getattr(self.backbone, "feature_info", None)
        depths = {int(stage["reduction"]): (number, int(stage["num_chs"])) for number, stage in enumerate(info or [])}
        if not set(STRIDES) <= set(depths) or not hasattr(self.backbone, "forward_intermediates"):
            raise UserError(
                f"model.backbone={settings.backbone}: gives no maps at strides of 8, 16 and 32, which detectors need; "
                "take a timm backbone such as resnet18d or convnext_nano"
            )
        self.stages = [depths[stride][0] for stride in STRIDES]
        self.mix = FeaturePyramidNetwork([depths[stride][1] for stride in STRIDES], WIDTH)
        self.out_channels = WIDTH  # torchvision's detectors ask for it

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = self.backbone.forward_intermediates(images, indices=self.stages, intermediates_only=True)  # type: ignore[operator]
        return self.mix({str(stride): found for stride, found in zip(STRIDES, maps, strict=True)})
