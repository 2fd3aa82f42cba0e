"""Where on an image: a logit for every cell of 8 by 8 pixels, from an encoder's maps, and features made by them.

A fracture is a gap of a millimetre or two; of the mean over an image, which encoders give, it is a hundredth. So every
place of the map at stride 8 is asked, with the last map as its context, and the places that answer make up features.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import interpolate

from cspine.config import Model
from cspine.data.level_cells import CELL_PX
from cspine.errors import UserError
from cspine.models.backbones import create_backbone, feature_count
from cspine.models.weights import PREFIX, read_state

WIDTH = 64


def create_encoder(settings: Model, channels: int) -> nn.Module:
    """What maps images (n, channels, y, x) to (n, feature_count): a backbone, or with `settings.cells` a CellEncoder.

    Raises UserError as create_backbone does, and for a backbone without a map at stride 8.
    """
    backbone = create_backbone(replace(settings, cells=False), channels)
    if not settings.cells:
        return backbone
    encoder = CellEncoder(backbone, settings.backbone)
    if settings.pretrained not in (None, "imagenet"):
        _load_cells(encoder, Path(str(settings.pretrained)))
    return encoder


class CellEncoder(nn.Module):
    """Maps images (n, channels, y, x) to features (n, num_features), the backbone's and those of the cells."""

    def __init__(self, backbone: nn.Module, name: str) -> None:
        super().__init__()
        stages = _stages(backbone, name)
        self.backbone = backbone
        self.stage = max(number for number, (reduction, _) in enumerate(stages) if reduction == CELL_PX)
        self.fine = nn.Conv2d(stages[self.stage][1], WIDTH, 1)
        self.coarse = nn.Conv2d(stages[-1][1], WIDTH, 1)
        self.mix = nn.Sequential(nn.ReLU(), nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU())
        self.logit = nn.Conv2d(WIDTH, 1, 1)
        # Few cells show anything; without this the first steps do nothing but learn that.
        nn.init.constant_(self.logit.bias, -4.0)  # type: ignore[arg-type]
        self.num_features = feature_count(backbone) + WIDTH + 1

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.look(images)[0]

    def look(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The features, and beside them the logits of the images' cells (n, cells, cells)."""
        last, (fine,) = self.backbone.forward_intermediates(images, indices=[self.stage])  # type: ignore[operator]
        context = interpolate(self.coarse(last), size=fine.shape[-2:], mode="bilinear")
        places = self.mix(self.fine(fine) + context)
        logits = self.logit(places)[:, 0].float()
        weights = logits.flatten(1).softmax(dim=1)
        seen = torch.einsum("nk,nck->nc", weights, places.flatten(2).float())
        whole = self.backbone.forward_head(last)  # type: ignore[operator]
        return torch.cat([whole, seen, logits.flatten(1).amax(dim=1, keepdim=True)], dim=1), logits


def _load_cells(encoder: CellEncoder, file: Path) -> None:
    """The cells' weights from a file with an encoder of ours; of one that knows no cells they start anew."""
    expected = {key for key in encoder.state_dict() if not key.startswith(PREFIX)}
    state = {key.removeprefix(PREFIX): value for key, value in read_state(file).items()}
    if not expected <= state.keys():
        return
    try:
        encoder.load_state_dict({key: state[key] for key in expected}, strict=False)
    except RuntimeError as error:
        raise UserError(f"model.pretrained={file}: its cells do not fit ({str(error).splitlines()[0]})") from error


def _stages(backbone: nn.Module, name: str) -> list[tuple[int, int]]:
    """The stride and the channels of each of the backbone's maps."""
    info: Any = getattr(backbone, "feature_info", None)
    stages = [(int(stage["reduction"]), int(stage["num_chs"])) for stage in info or []]
    if CELL_PX not in dict(stages) or not hasattr(backbone, "forward_intermediates"):
        raise UserError(
            f"model.cells=true: {name} gives no map at stride {CELL_PX}; set it to false, or take a timm backbone such "
            "as resnet18d or convnext_nano"
        )
    return stages
