"""The report's 14 by their names, torchvision's encoders, image sizes, and stems that a grey image excites alike."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import DropPath
from torch import nn

from cspine.config import Model
from cspine.errors import UserError
from cspine.models import torchvision_encoders
from cspine.models.backbones import REPORT, create_backbone, feature_count, require_size, usable_size
from cspine.models.registry import create_model

# Of what timm lacks.
FEATURES = {
    "alexnet": 4096,
    "googlenet": 1024,
    "mnasnet1_3": 1280,
    "shufflenet_v2_x2_0": 2048,
    "squeezenet1_0": 512,
}


def test_the_report_names_fourteen_models_that_exist() -> None:
    assert len(REPORT) == len(set(REPORT.values())) == 14
    for name in REPORT.values():
        assert timm.is_model(name) != (name in FEATURES), name
        assert timm.is_model(name) or torchvision_encoders.is_model(name), name


@pytest.mark.parametrize(("name", "features"), FEATURES.items())
@pytest.mark.parametrize("channels", [1, 5])
def test_torchvision_fills_what_timm_lacks(name: str, features: int, channels: int) -> None:
    torch.manual_seed(0)
    backbone = create_backbone(Model(backbone=name), channels).eval()
    images = torch.randn(2, channels, 64, 64, requires_grad=True)
    found = backbone(images)
    assert found.shape == (2, features)
    assert feature_count(backbone) == features
    found.abs().sum().backward()
    assert images.grad is not None
    assert (images.grad.abs().sum(dim=(0, 2, 3)) > 0).all()
    backbone.train()
    assert isinstance(backbone(images), torch.Tensor)  # GoogLeNet's auxiliary outputs are off


def test_timm_wins_where_both_have_a_name() -> None:
    assert type(create_backbone(Model(backbone="resnet18"), 1)).__module__.startswith("timm.")


@pytest.mark.parametrize("name", ["squeezenet1_0", "shufflenet_v2_x2_0", "resnet10t"])
@pytest.mark.parametrize("channels", [1, 6])
def test_a_grey_image_excites_an_adapted_stem_as_it_did_the_original(name: str, channels: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    original = create_backbone(Model(backbone=name), 3).eval()
    file = tmp_path / "weights.safetensors"
    save_file(original.state_dict(), file)
    adapted = create_backbone(Model(backbone=name, pretrained=str(file)), channels).eval()
    grey = torch.randn(2, 1, 64, 64)
    with torch.inference_mode():
        one, other = original(grey.expand(-1, 3, -1, -1)), adapted(grey.expand(-1, channels, -1, -1))
    assert (one - other).abs().max() < 1e-4 * one.std()


def test_a_run_of_ours_with_many_channels_can_be_started_from(tmp_path: Path) -> None:
    for name in ("lcnet_050", "squeezenet1_0"):
        torch.manual_seed(1)
        source = create_backbone(Model(backbone=name), 5)
        file = tmp_path / f"{name}.safetensors"
        save_file({f"backbone.{key}": value for key, value in source.state_dict().items()}, file)
        started = create_backbone(Model(backbone=name, pretrained=str(file)), 5).state_dict()
        assert all(torch.equal(value, started[key]) for key, value in source.state_dict().items())


def test_torchvision_weights_with_a_head_are_taken_and_others_refused(tmp_path: Path) -> None:
    whole = torchvision_encoders.torchvision.models.squeezenet1_0(weights=None)
    file = tmp_path / "whole.pth"
    torch.save(whole.state_dict(), file)
    taken = create_backbone(Model(backbone="squeezenet1_0", pretrained=str(file)), 3).state_dict()
    assert torch.equal(taken["features.0.weight"], whole.features[0].weight)
    with pytest.raises(UserError, match="does not fit shufflenet_v2_x2_0"):
        create_backbone(Model(backbone="shufflenet_v2_x2_0", pretrained=str(file)), 3)


def test_what_cannot_be_had_is_told() -> None:
    with pytest.raises(UserError, match="did you mean 'alexnet'"):
        create_backbone(Model(backbone="alexnett"), 1)
    with pytest.raises(UserError, match="did you mean 'alexnet'"):
        create_backbone(Model(backbone="alexnett", pretrained="imagenet"), 1)
    with pytest.raises(UserError, match="only timm's weights can be fetched"):
        create_backbone(Model(backbone="alexnet", pretrained="imagenet"), 1)


@pytest.mark.parametrize(
    ("name", "wanted", "usable"),
    [("alexnet", 64, 64), ("alexnet", 32, 64), ("inception_v3", 64, 75), ("vit_tiny_patch16_224", 64, 64),
     ("swin_tiny_patch4_window7_224", 75, 80), ("coatnet_0_224", 256, 224)],
)  # fmt: skip
def test_the_least_size_above_is_found(name: str, wanted: int, usable: int) -> None:
    assert usable_size(Model(backbone=name), 1, wanted) == usable


def test_an_image_too_small_is_refused_with_the_sizes_that_do() -> None:
    backbone = create_backbone(Model(backbone="alexnet"), 1)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    require_size(backbone, "alexnet", 1, 64)
    with pytest.raises(UserError, match=r"data.image_size_px=48: alexnet .* of the usual: 64, 75, 80"):
        require_size(backbone, "alexnet", 1, 48)
    assert backbone.training
    assert all(torch.equal(value, backbone.state_dict()[key]) for key, value in before.items())


@pytest.mark.parametrize(
    "name", ["test_resnet", "convnext_atto", "mobilenetv3_small_050", "swin_tiny_patch4_window7_224"]
)
def test_paths_are_dropped_in_training_only(name: str) -> None:
    torch.manual_seed(0)
    backbone = create_backbone(Model(backbone=name, drop_path=0.9), 1)
    images = torch.randn(2, 1, 64, 64)
    for part in backbone.modules():
        if isinstance(part, nn.Dropout | nn.modules.batchnorm._BatchNorm):
            part.eval()
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.ndim == 1:
                parameter.fill_(1.0)  # else a path may begin as nothing
    assert not torch.equal(backbone(images), backbone(images))
    backbone.eval()
    assert torch.equal(backbone(images), backbone(images))


def test_weights_from_a_file_drop_paths_too(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file(create_backbone(Model(backbone="test_resnet"), 3).state_dict(), file)
    made = create_backbone(Model(backbone="test_resnet", pretrained=str(file), drop_path=0.3), 3)
    assert max(part.drop_prob for part in made.modules() if isinstance(part, DropPath)) == pytest.approx(0.3)


@pytest.mark.parametrize("name", ["vgg11_bn", "alexnet", "lcnet_050", "densenet121"])
def test_a_backbone_without_paths_to_drop_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"model\.drop_path=0\.2: {name} has no paths to drop"):
        create_backbone(Model(backbone=name, drop_path=0.2), 1)
    for model in ("plain_unet", "volume_classifier"):
        with pytest.raises(UserError, match="a plain encoder has no paths"):
            create_model(Model(name=model, drop_path=0.2), 1, 7)


def test_an_inflated_encoder_drops_paths() -> None:
    made = create_model(Model(name="inflated_unet", backbone="test_resnet", drop_path=0.3), 1, 7)
    assert any(isinstance(part, DropPath) for part in made.modules())


def test_mnasnet_learns_its_statistics_within_a_short_training() -> None:
    backbone = create_backbone(Model(backbone="mnasnet1_3"), 1)
    assert {part.momentum for part in backbone.modules() if isinstance(part, nn.BatchNorm2d)} == {0.1}
