"""The real ImageNet weights of SqueezeNet 1.0, which lie beside the project, through `model.pretrained`."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from cspine.config import Model
from cspine.models.backbones import create_backbone
from cspine.models.weights import CAFFE_MEAN

WEIGHTS = Path(__file__).parents[3] / "shared" / "weights" / "squeezenet1_0_imagenet.npz"
pytestmark = pytest.mark.skipif(not WEIGHTS.is_file(), reason=f"{WEIGHTS} is absent")


@pytest.mark.parametrize("channels", [1, 3])
def test_features_of_a_grey_picture_are_those_of_the_original_network(channels: int) -> None:
    original = torchvision.models.squeezenet1_0(weights=None).eval()
    with np.load(WEIGHTS) as arrays:
        original.load_state_dict({key: torch.from_numpy(arrays[key]) for key in arrays})
    backbone = create_backbone(Model(backbone="squeezenet1_0", pretrained=str(WEIGHTS)), channels).eval()
    ramp = torch.linspace(0, 255, 227)
    grey = (ramp[:, None] * 0.5 + ramp.flip(0)[None] * 0.5 + 40 * torch.sin(ramp / 6)).clamp(0, 255)
    with torch.inference_mode():
        caffe = grey[None, None] - torch.tensor(CAFFE_MEAN)[:, None, None]
        expected = original.features(caffe).mean(dim=(2, 3))
        found = backbone((grey * 2 / 255 - 1).expand(1, channels, -1, -1))
    assert expected.std() > 0
    assert (found - expected).abs().max() < 1e-3 * expected.std()
