"""Faster R-CNN (Ren et al. 2015) of torchvision on a pyramid of any timm encoder."""

from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.ops import MultiScaleRoIAlign

from cspine.config import Model
from cspine.models.detector import CLASSES, AsTheyAre, Detector, box_heads, proposals, require_one_output
from cspine.models.pyramid import STRIDES, WIDTH, Pyramid

CELLS, HIDDEN = 7, 256


def build(settings: Model, channels: int, outputs: int) -> Detector:
    """The model for images of `channels`."""
    require_one_output(settings, outputs)
    heads = box_heads(
        MultiScaleRoIAlign([str(stride) for stride in STRIDES], CELLS, sampling_ratio=2),
        TwoMLPHead(WIDTH * CELLS**2, HIDDEN),
        FastRCNNPredictor(HIDDEN, CLASSES),
    )
    return Detector(GeneralizedRCNN(Pyramid(settings, channels), proposals(), heads, AsTheyAre()))
