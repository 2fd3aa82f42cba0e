"""Weights of Caffe's convention give on our images what they gave on theirs."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cspine.config import Model
from cspine.errors import UserError
from cspine.models.backbones import create_backbone
from cspine.models.weights import CAFFE_MEAN


def written(name: str, file: Path) -> torch.nn.Module:
    """Save an encoder as .npz and return it, for images in BGR of 0..255 minus the mean."""
    torch.manual_seed(0)
    source = create_backbone(Model(backbone=name), 3).eval()
    np.savez(file, **{key: value.numpy() for key, value in source.state_dict().items()})
    return source


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_a_pixel_in_our_range_excites_as_it_did_in_caffes(channels: int, tmp_path: Path) -> None:
    file = tmp_path / "weights.npz"
    source = written("squeezenet1_0", file)
    loaded = create_backbone(Model(backbone="squeezenet1_0", pretrained=str(file)), channels).eval()
    pixels = torch.randint(0, 256, (2, 1 if channels == 1 else 3, 64, 64)).float()
    if channels != 3:
        pixels = pixels[:, :1].expand(-1, 3, -1, -1)
    caffe = pixels.flip(1) - torch.tensor(CAFFE_MEAN)[:, None, None]
    ours = pixels * 2 / 255 - 1
    ours = ours[:, :1].expand(-1, channels, -1, -1) if channels != 3 else ours
    with torch.inference_mode():
        expected, found = source(caffe), loaded(ours)
    assert expected.std() > 1  # pixels of 0..255 excite much
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("name", ["alexnet", "shufflenet_v2_x2_0"])
def test_a_stem_that_cannot_take_up_the_mean_is_refused(name: str, tmp_path: Path) -> None:
    file = tmp_path / "weights.npz"
    written(name, file)
    with pytest.raises(UserError, match="with a bias and without padding"):
        create_backbone(Model(backbone=name, pretrained=str(file)), 3)
