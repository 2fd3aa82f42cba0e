"""R-FCN (Dai et al. 2016): each cell of a proposed box votes by a map of its own, so that nothing follows the pooling.

On torchvision's position-sensitive pooling and a pyramid of any timm encoder.
"""

import torch
from torch import nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.ops import ps_roi_align

from cspine.config import Model
from cspine.models.detector import CLASSES, AsTheyAre, Detector, box_heads, proposals, require_one_output
from cspine.models.pyramid import STRIDES, WIDTH, Pyramid

CELLS = 3
VOTES = CLASSES * 5  # a score and four moves of the box for each class


class Voting(nn.Module):
    """Maps the pyramid's maps and the boxes of each image to votes (boxes, VOTES), on the map of the finest stride."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Conv2d(WIDTH, VOTES * CELLS**2, 1)

    def forward(
        self,
        features: dict[str, torch.Tensor],
        boxes: list[torch.Tensor],
        image_shapes: list[tuple[int, int]],  # noqa: ARG002
    ) -> torch.Tensor:
        fine = self.maps(features[str(STRIDES[0])])
        return ps_roi_align(fine, boxes, CELLS, spatial_scale=1 / STRIDES[0], sampling_ratio=2).mean(dim=(2, 3))


class Ballot(nn.Module):
    """Votes (boxes, VOTES) as scores (boxes, classes) and moves (boxes, 4 * classes)."""

    def forward(self, votes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return votes[:, :CLASSES], votes[:, CLASSES:]


def build(settings: Model, channels: int, outputs: int) -> Detector:
    """The model for images of `channels`."""
    require_one_output(settings, outputs)
    heads = box_heads(Voting(), nn.Identity(), Ballot())
    return Detector(GeneralizedRCNN(Pyramid(settings, channels), proposals(), heads, AsTheyAre()))
