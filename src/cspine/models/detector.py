"""torchvision's detectors as models of the one training loop: tensors in, tensors out."""

import numpy as np
import torch
from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import box_iou, nms

from cspine.config import Model
from cspine.models.mirror import refuse_mirror
from cspine.models.pyramid import STRIDES, WIDTH

KEPT = 4  # boxes of an image, the likeliest; people drew one a slice
CLASSES = 2  # torchvision counts what is none of the things looked for
# Edges of the boxes that are tried first, in strides of their map, and height by width.
ANCHOR_STRIDES, RATIOS = 4, (0.5, 1.0, 2.0)
LEAST_SCORE, OVERLAP = 0.01, 0.3
PROPOSALS, SAMPLES = 200, 64


class Detector(nn.Module):
    """Finds fractures on uint8 images (n, channels, y, x).

    In training it is given the box of each image, (n, 4) left, top, right, bottom in pixels, NaN where there is none,
    and returns the parts of its loss (parts,). Else (n, KEPT * 5): left, top, right, bottom and score of each box, the
    likeliest first, a score of 0 where there are fewer.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor, box: torch.Tensor | None = None) -> torch.Tensor:
        inputs = list(images.float().mul(2 / 255).sub(1))
        if box is not None:
            losses: dict[str, torch.Tensor] = self.network(inputs, [_target(one) for one in box])
            return torch.stack(list(losses.values()))
        return torch.stack([_likeliest(found) for found in self.network(inputs)])


class AsTheyAre(GeneralizedRCNNTransform):
    """Keeps torchvision from resizing images and changing their grey values."""

    def __init__(self) -> None:
        super().__init__(0, 0, [], [])

    def normalize(self, image: torch.Tensor) -> torch.Tensor:
        return image

    def resize(
        self, image: torch.Tensor, target: dict[str, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor] | None]:
        return image, target


def proposals() -> RegionProposalNetwork:
    """Where to look closer: an anchor generator and a small network over the pyramid's maps (Ren et al. 2015)."""
    anchors = AnchorGenerator(tuple((ANCHOR_STRIDES * stride,) for stride in STRIDES), (RATIOS,) * len(STRIDES))
    head = RPNHead(WIDTH, len(RATIOS))
    count = {"training": 2 * PROPOSALS, "testing": PROPOSALS}
    return RegionProposalNetwork(anchors, head, 0.7, 0.3, SAMPLES, 0.5, count, count, 0.7)


def box_heads(pool: nn.Module, head: nn.Module, predictor: nn.Module) -> RoIHeads:
    """What judges proposed boxes: `pool` gathers the maps within them, `head` and `predictor` score and move them."""
    return RoIHeads(
        pool,
        head,
        predictor,
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=SAMPLES,
        positive_fraction=0.25,
        bbox_reg_weights=None,
        score_thresh=LEAST_SCORE,
        nms_thresh=OVERLAP,
        detections_per_img=KEPT,
    )


def fuse(found: np.ndarray) -> np.ndarray:
    """The boxes that several models found on each image, float32 (models, n, KEPT, 5), as one's, (n, KEPT, 5).

    Those that overlap as a single model's never do become one, the mean by score. Its score is the sum over the number
    of models, so that a model that did not find it counts as 0: weighted boxes fusion (Solovyev et al., Image Vis
    Comput 107, 2021), but about the surest box of each group, where theirs moves with every box that joins. The order
    of the models changes nothing, and the boxes of one stay as they are.
    """
    fused = [_fuse_image(np.concatenate(boxes), len(found)) for boxes in found.swapaxes(0, 1)]
    return np.array(fused, np.float32).reshape(found.shape[1:])


def require_one_output(settings: Model, outputs: int) -> None:
    """Raises for what a detector does not do."""
    if outputs != 1:
        raise ValueError(f"{settings.name} finds one kind of thing, not {outputs}")
    refuse_mirror(settings, "")


def _target(box: torch.Tensor) -> dict[str, torch.Tensor]:
    boxes = box[None][~box[None].isnan().any(dim=1)]
    return {"boxes": boxes, "labels": torch.ones(len(boxes), dtype=torch.int64, device=box.device)}


def _fuse_image(boxes: np.ndarray, models: int) -> np.ndarray:
    """(KEPT, 5), the likeliest first, of all boxes (m, 5) that the models found on one image."""
    fused = np.zeros((KEPT, 5))
    boxes = boxes[(boxes[:, 4] > 0) & (boxes[:, :2] < boxes[:, 2:4]).all(axis=1)]
    if not len(boxes):
        return fused
    left, top, right, bottom, scores = boxes.T
    # Equally sure boxes in the order of their places, not of the models.
    boxes = boxes[np.lexsort((bottom, right, top, left, -scores))]
    corners, scores = torch.from_numpy(boxes[:, :4]), torch.from_numpy(boxes[:, 4])
    surest = nms(corners, scores, OVERLAP)
    group = box_iou(corners, corners[surest]).argmax(dim=1).numpy()
    weights = boxes[:, 4].astype(float) * (group == np.arange(len(surest))[:, None])
    total = weights.sum(axis=1)
    means = weights @ boxes[:, :4].astype(float) / total[:, None]
    rows = np.column_stack([means, total / np.maximum(np.bincount(group), models)])
    kept = np.argsort(-rows[:, 4], kind="stable")[:KEPT]
    fused[: len(kept)] = rows[kept]
    return fused


def _likeliest(found: dict[str, torch.Tensor]) -> torch.Tensor:
    order = found["scores"].argsort(descending=True, stable=True)[:KEPT]
    rows = torch.cat([found["boxes"], found["scores"][:, None]], dim=1)[order]
    return torch.cat([rows, rows.new_zeros(KEPT - len(rows), 5)]).flatten()
