"""Where on an image: a logit for every cell of 8 by 8 pixels, from an encoder's maps, and features made by them.

A fracture is a gap of a millimetre or two; of the mean over an image, which encoders give, it is a hundredth. So every
place of the map at stride 8 is asked, with the last map as its context, and the places that answer make up features.
"""

from typing import Any

import torch
from torch import nn
from torch.nn.functional import interpolate

from cspine.data.level_cells import CELL_PX
from cspine.errors import UserError

WIDTH = 64


class Cells(nn.Module):
    """Looks at the maps of a backbone, which is not part of it: images (n, channels, y, x) to features (n, width).

    Beside them the logits of the images' cells (n, cells, cells).
    """

    def __init__(self, backbone: nn.Module, features: int, name: str) -> None:
        super().__init__()
        stages = _stages(backbone, name)
        self.stage = max(number for number, (reduction, _) in enumerate(stages) if reduction == CELL_PX)
        self.fine = nn.Conv2d(stages[self.stage][1], WIDTH, 1)
        self.coarse = nn.Conv2d(stages[-1][1], WIDTH, 1)
        self.mix = nn.Sequential(nn.ReLU(), nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU())
        self.logit = nn.Conv2d(WIDTH, 1, 1)
        # Few cells show anything; without this the first steps do nothing but learn that.
        nn.init.constant_(self.logit.bias, -4.0)  # type: ignore[arg-type]
        self.width = features + WIDTH + 1

    def forward(self, backbone: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        last, (fine,) = backbone.forward_intermediates(images, indices=[self.stage])  # type: ignore[operator]
        context = interpolate(self.coarse(last), size=fine.shape[-2:], mode="bilinear")
        places = self.mix(self.fine(fine) + context)
        logits = self.logit(places)[:, 0].float()
        weights = logits.flatten(1).softmax(dim=1)
        seen = torch.einsum("nk,nck->nc", weights, places.flatten(2).float())
        whole = backbone.forward_head(last)  # type: ignore[operator]
        return torch.cat([whole, seen, logits.flatten(1).amax(dim=1, keepdim=True)], dim=1), logits


def _stages(backbone: nn.Module, name: str) -> list[tuple[int, int]]:
    """The stride and the channels of each of the backbone's maps."""
    info: Any = getattr(backbone, "feature_info", None)
    stages = [(int(stage["reduction"]), int(stage["num_chs"])) for stage in info or []]
    if CELL_PX not in dict(stages) or not hasattr(backbone, "forward_intermediates"):
        raise UserError(
            f"model.sequence.cells=true: {name} gives no map at stride {CELL_PX}; set it to false, or take a timm "
            "backbone such as resnet18d or convnext_nano"
        )
    return stages
