"""Faster R-CNN (Ren et al. 2015) of torchvision on a pyramid of any timm encoder."""

from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import MultiScaleRoIAlign

from cspine.config import Model
from cspine.models.detector import (
    CLASSES,
    KEPT,
    LEAST_SCORE,
    OVERLAP,
    SAMPLES,
    AsTheyAre,
    Detector,
    proposals,
    require_one_output,
)
from cspine.models.pyramid import STRIDES, WIDTH, Pyramid

CELLS, HIDDEN = 7, 256


def build(settings: Model, channels: int, outputs: int) -> Detector:
    """The model for images of `channels`."""
    require_one_output(settings, outputs)
    heads = RoIHeads(
        MultiScaleRoIAlign([str(stride) for stride in STRIDES], CELLS, sampling_ratio=2),
        TwoMLPHead(WIDTH * CELLS**2, HIDDEN),
        FastRCNNPredictor(HIDDEN, CLASSES),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=SAMPLES,
        positive_fraction=0.25,
        bbox_reg_weights=None,
        score_thresh=LEAST_SCORE,
        nms_thresh=OVERLAP,
        detections_per_img=KEPT,
    )
    return Detector(GeneralizedRCNN(Pyramid(settings, channels), proposals(), heads, AsTheyAre()))
