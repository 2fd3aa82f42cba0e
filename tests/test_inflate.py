"""An inflated network is its 2-D twin on volumes that do not change in z, and what cannot be inflated is refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cspine.config import Model
from cspine.errors import UserError
from cspine.models.backbones import create_backbone
from cspine.models.inflate import inflate
from cspine.models.registry import create_model


def features(model: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    return model.forward_intermediates(images, intermediates_only=True)  # type: ignore[operator]


def twins(settings: Model, depth: int = 3) -> tuple[nn.Module, nn.Module]:
    """A 2-D network with statistics of its own, and it inflated; both in evaluation."""
    torch.manual_seed(0)
    network = create_backbone(settings, 1)
    with torch.no_grad():
        for _ in range(3):
            network.train()(torch.randn(4, 1, 64, 64))
    return network.eval(), inflate(network, features, settings.inflate, depth).eval()


@pytest.mark.parametrize("how", ["mean", "centre"])
@pytest.mark.parametrize("backbone", ["resnet10t", "mobilenetv3_small_050", "seresnext26d_32x4d"])
def test_on_a_volume_constant_in_z_every_plane_is_the_image(backbone: str, how: str) -> None:
    network, inflated = twins(Model(backbone=backbone, inflate=how))
    image = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        plain, volumes = features(network, image), features(inflated, image[:, :, None].repeat(1, 1, 40, 1, 1))
    for step, (one, many) in enumerate(zip(plain, volumes, strict=True)):
        assert many.shape[-1] == one.shape[-1], step
        assert torch.allclose(many, one[:, :, None].expand_as(many), atol=1e-4 * float(one.abs().max()))


def test_the_mean_sees_the_planes_beside_it_and_the_centre_does_not() -> None:
    volume = torch.randn(1, 1, 32, 32, 32)
    changed = volume.clone()
    changed[:, :, 8] += 1
    for how, planes in (("mean", 3), ("centre", 1)):
        stem = inflate(nn.Sequential(nn.Conv2d(1, 4, 3)), lambda model, images: [model(images)], how, 3)
        with torch.no_grad():
            moved = (stem(volume) - stem(changed)).abs().sum((0, 1, 3, 4))
        assert int((moved > 1e-4).sum()) == planes


def test_pretrained_weights_reach_the_inflated_encoder(tmp_path: Path) -> None:
    torch.manual_seed(1)
    source = create_backbone(Model(backbone="resnet10t"), 1)
    save_file({key: value.contiguous() for key, value in source.state_dict().items()}, tmp_path / "w.safetensors")
    settings = Model(name="inflated_unet", backbone="resnet10t", pretrained=str(tmp_path / "w.safetensors"))
    made = create_model(settings, 1, 7)
    weight = made.encoder.network.layer1[0].conv1.weight  # type: ignore[union-attr, index]
    assert weight.shape[2] == 3
    assert torch.allclose(weight.sum(dim=2), source.layer1[0].conv1.weight)  # type: ignore[union-attr, index]


@pytest.mark.parametrize(
    ("backbone", "told"),
    [
        ("edgenext_xx_small", "each half of the one before"),
        ("vit_tiny_patch16_224", "needs each half of the one before"),
        ("tf_efficientnet_b0", "cannot be inflated"),
    ],
)
def test_what_is_no_plain_convolutional_network_is_refused(backbone: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        create_model(Model(name="inflated_unet", backbone=backbone), 1, 7)


def test_a_network_that_mixes_planes_is_found_out() -> None:
    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.conv(images) - images.sum(dim=2).mean()  # a sum over rows, or over planes

    with pytest.raises(UserError, match="on a volume constant in z features of"):
        inflate(Mixing(), lambda model, images: [model(images)], "mean", 3)


@pytest.mark.parametrize("name", ["plain_unet", "inflated_unet"])
def test_voxels_in_training_planes_in_evaluation(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(Model(name=name, backbone="resnet10t", width=4, dropout=0), 2, 7)
    windows = torch.randint(0, 256, (2, 2, 32, 48, 32), dtype=torch.uint8)
    voxels = model(windows)
    assert voxels.shape == (2, 7, 32, 48, 32)
    voxels.square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())  # DDP refuses unused ones
    with torch.no_grad():
        planes, voxels = model.eval()(windows), model.segment(windows)  # type: ignore[operator]
    highest = voxels.flatten(3).sort(dim=-1).values[..., -4:]
    assert torch.allclose(planes, highest.mean(-1), atol=1e-5)
