"""SSD (Liu et al. 2016) of torchvision on a pyramid of any timm encoder: boxes at once, without proposals."""

import torch
from torch.nn.functional import cross_entropy, smooth_l1_loss
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD, SSDHead

from cspine.config import Model
from cspine.models.detector import (
    ANCHOR_STRIDES,
    CLASSES,
    KEPT,
    LEAST_SCORE,
    OVERLAP,
    AsTheyAre,
    Detector,
    require_one_output,
)
from cspine.models.pyramid import STRIDES, WIDTH, Pyramid

USUAL_PX = 256  # the size of images of which the boxes tried first are the given shares
HARD = 3  # of the places without a fracture, so many for each with one: those that are missed most


class BatchSSD(SSD):
    """Looks for the hardest places without a fracture in the whole batch.

    torchvision's looks in each image, for so many times its own boxes, and so learns nothing from images without one.
    """

    def compute_loss(
        self,
        targets: list[dict[str, torch.Tensor]],
        head_outputs: dict[str, torch.Tensor],
        anchors: list[torch.Tensor],
        matched_idxs: list[torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        matched = torch.stack(matched_idxs)
        is_met = matched >= 0
        count = int(is_met.sum())
        logits, moves = head_outputs["cls_logits"].float(), head_outputs["bbox_regression"].float()
        move_loss = moves.new_zeros(())
        for target, tried, move, met, box in zip(targets, anchors, moves, is_met, matched, strict=True):
            wanted = self.box_coder.encode_single(target["boxes"][box[met]], tried[met])
            move_loss = move_loss + smooth_l1_loss(move[met], wanted, reduction="sum")
        each = cross_entropy(logits.flatten(0, 1), is_met.flatten().long(), reduction="none").view_as(is_met)
        others = each[~is_met]
        hardest = others.topk(min(len(others), HARD * max(count, len(targets)))).values
        total = max(count, 1)
        return {
            "bbox_regression": move_loss / total,
            "classification": (each[is_met].sum() + hardest.sum()) / total,
        }


def build(settings: Model, channels: int, outputs: int) -> Detector:
    """The model for images of `channels`."""
    require_one_output(settings, outputs)
    shares = [ANCHOR_STRIDES * stride / USUAL_PX for stride in (*STRIDES, 2 * STRIDES[-1])]
    anchors = DefaultBoxGenerator([[2]] * len(STRIDES), scales=shares, steps=list(STRIDES))
    head = SSDHead([WIDTH] * len(STRIDES), anchors.num_anchors_per_location(), CLASSES)
    network = BatchSSD(
        Pyramid(settings, channels),
        anchors,
        (USUAL_PX, USUAL_PX),
        CLASSES,
        head=head,
        score_thresh=LEAST_SCORE,
        nms_thresh=OVERLAP,
        detections_per_img=KEPT,
    )
    network.transform = AsTheyAre()
    return Detector(network)
