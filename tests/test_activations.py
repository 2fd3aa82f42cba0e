"""Memory counted on tensors without values is what real ones take, and checkpoints take less."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from cspine.benchmarks.activations import Kept, activation_bytes, activations_table
from cspine.config import Config, Crop, Data, Model
from cspine.errors import UserError

CONFIG = Config(
    name="s",
    task="fracture/study",
    data=Data(image_size_px=64, neighbours=0),
    crop=Crop(slices=2),
    model=Model(name="study_classifier", backbone="convnext_atto"),
)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_what_a_layer_keeps_is_counted_once_and_given_back(device: str) -> None:
    """A ReLU keeps its result, which the next layer keeps as its input too: 40 numbers; the first input: 20."""
    model = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 1)).to(device)
    kept = Kept(model)
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda holder: holder.tensor):
        model(torch.zeros(2, 10, device=device)).sum().backward()
    assert kept.most == 4 * (2 * 10 + 2 * 20)
    assert kept.now == 0


def test_checkpoints_keep_less_and_more_images_more() -> None:
    whole, less = (activation_bytes(CONFIG, checkpointing) for checkpointing in (False, True))
    assert less < whole / 2
    assert activation_bytes(replace(CONFIG, crop=Crop(slices=4)), False) == pytest.approx(2 * whole, rel=0.01)


def test_the_table_is_of_a_patient() -> None:
    assert "7 x 2 images of 2 channels, 64 px, convnext_atto" in activations_table(CONFIG)
    with pytest.raises(UserError, match="not fracture/sequence"):
        activations_table(replace(CONFIG, task="fracture/sequence"))
