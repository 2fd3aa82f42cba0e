"""The 3-D classifiers: shapes on both encoders, attention over places, the order of the axes, and refusals."""

import pytest
import torch

from cspine.config import Model
from cspine.errors import UserError
from cspine.models.registry import create_model

PLAIN = Model(name="volume_classifier", width=4, dropout=0.0)
INFLATED = Model(name="volume_classifier", encoder="inflated", backbone="test_resnet", dropout=0.0)


def made(settings: Model, channels: int = 2, outputs: int = 8) -> torch.nn.Module:
    torch.manual_seed(0)
    return create_model(settings, channels, outputs).eval()


def volume(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.mark.parametrize("settings", [PLAIN, INFLATED], ids=["plain", "inflated"])
def test_each_output_gets_a_logit_and_every_weight_a_gradient(settings: Model) -> None:
    model = made(settings).train()
    outputs = model(volume(2, 2, 48, 32, 64))
    assert outputs.shape == (2, 8)
    outputs.square().sum().backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []


def test_attention_chooses_the_place_that_an_output_is_judged_at() -> None:
    model = made(PLAIN, outputs=2)
    features = torch.zeros(1, 4 * (4 + 8), 2, 2, 2)
    features[0, 0, 1, 0, 1] = 1.0  # what this place says

    class Given(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:  # noqa: ARG002
            return [features[:, :16], features[:, 16:]]

    model.encoder = Given()
    with torch.no_grad():
        for layer in (model.judge, model.attention):
            layer.weight.zero_()
            layer.bias.zero_()
        model.judge.weight[:, 0] = 4.0
        model.attention.weight[1, 0] = 50.0
        logits = model(volume(1, 2, 16, 16, 16))[0]
    assert logits.tolist() == pytest.approx([4 / 8, 4.0], abs=1e-4)


def test_a_level_is_stacked_along_z_with_its_mask_as_a_channel() -> None:
    level = made(Model(name="level_volume_classifier", width=4, dropout=0.0), channels=1, outputs=1)
    whole = made(PLAIN, channels=2, outputs=1)
    whole.load_state_dict(level.classifier.state_dict())
    images = volume(3, 16, 2, 32, 48)
    with torch.inference_mode():
        stacked = torch.stack([images[:, :, 0], images[:, :, 1]], dim=1)
        assert torch.equal(level(images), whole(stacked))
        assert level(images).shape == (3, 1)


def test_a_plain_encoder_has_no_pretrained_weights() -> None:
    with pytest.raises(UserError, match=r"model\.encoder=inflated"):
        create_model(Model(name="volume_classifier", pretrained="imagenet"), 1, 8)
