"""Any timm backbone, any number of channels, local weights; errors that name the nearest thing that exists."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cspine.config import Model
from cspine.errors import UserError
from cspine.models.backbones import create_backbone
from cspine.models.registry import create_model, list_models


@pytest.mark.parametrize("backbone", ["mobilenetv3_small_050", "lcnet_050", "resnet10t", "edgenext_xx_small"])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_any_backbone_and_channel_count(backbone: str, channels: int) -> None:
    model = create_model(Model(backbone=backbone), channels, 7).eval()
    images = torch.randint(0, 256, (2, channels, 64, 64), dtype=torch.uint8)
    logits = model(images)
    assert logits.shape == (2, 7)
    assert not torch.equal(logits[0], logits[1])


def test_the_output_depends_on_every_channel() -> None:
    torch.manual_seed(0)
    model = create_model(Model(), 3, 1).eval()
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    for channel in range(3):
        changed = images.clone()
        changed[:, channel] = 0
        assert not torch.equal(model(images), model(changed))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_local_weights_are_loaded_and_the_stem_adapted(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(1)
    source = create_backbone(Model(), 3)
    file = tmp_path / f"weights{suffix}"
    state = {key: value.clone() for key, value in source.state_dict().items()}
    if suffix == ".pth":
        torch.save(state, file)
    else:
        save_file(state, file)
    torch.manual_seed(2)
    same = create_backbone(Model(pretrained=str(file)), 3)
    assert all(torch.equal(value, same.state_dict()[key]) for key, value in state.items())
    grey = create_backbone(Model(pretrained=str(file)), 1)
    # A grey image repeated over three channels must excite the summed stem as it did the original one.
    assert torch.allclose(grey.conv_stem.weight, source.conv_stem.weight.sum(1, keepdim=True))


def test_the_encoder_of_a_run_of_ours_can_be_started_from(tmp_path: Path) -> None:
    source = create_model(Model(), 3, 7)
    file = tmp_path / "weights.safetensors"
    save_file({key: value.contiguous() for key, value in source.state_dict().items()}, file)
    started = create_model(Model(pretrained=str(file)), 3, 1)
    ours, theirs = source.state_dict(), started.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours if key.startswith("backbone."))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (Model(backbone="mobilenetv3_smal_050"), "did you mean 'mobilenetv3_small_050'"),
        (Model(name="slice_clasifier"), "did you mean 'slice_classifier'"),
        (Model(name="registry"), "there is no such file"),
        (Model(pretrained="nowhere.pth"), "no such file"),
        (Model(pretrained="imagenet"), "without a network set model.pretrained=null"),
    ],
)
def test_what_is_not_there_is_named_at_once(settings: Model, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("socket.create_connection", unreachable)
    with pytest.raises(UserError, match=told):
        create_model(settings, 3, 7)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.pth"
    torch.save(create_backbone(Model(backbone="lcnet_050"), 3).state_dict(), file)
    with pytest.raises(UserError, match="does not fit mobilenetv3_small_050"):
        create_backbone(Model(pretrained=str(file)), 3)


def test_the_registry_lists_models_only() -> None:
    assert "slice_classifier" in list_models()
    assert not {"registry", "backbones"} & set(list_models())


def test_weights_of_two_dimensions_are_kept_channels_last() -> None:
    model = create_model(Model(backbone="test_byobnet"), 3, 7)
    layers = [layer for layer in model.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert all(layer.weight.is_contiguous(memory_format=torch.channels_last) for layer in layers)
    assert model.backbone.forward_features(torch.zeros(2, 3, 64, 64)).is_contiguous(memory_format=torch.channels_last)
