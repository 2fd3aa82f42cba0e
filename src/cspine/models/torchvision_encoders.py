"""torchvision's classifiers without their last layer, behind the interface of timm's encoders."""

from typing import Any

import torch
import torchvision
from torch import nn
from torchvision.models.mnasnet import MNASNet
from torchvision.models.squeezenet import SqueezeNet

# What a constructor does not do by itself: GoogLeNet's auxiliary outputs are for training from ImageNet only.
OPTIONS: dict[str, dict[str, Any]] = {"googlenet": {"aux_logits": False, "init_weights": True}}


def list_models() -> list[str]:
    return torchvision.models.list_models(module=torchvision.models)


def is_model(name: str) -> bool:
    return name in list_models()


def create_encoder(name: str, channels: int) -> nn.Module:
    """An untrained encoder: (n, channels, y, x) to (n, num_features).

    What stands before the last linear layer stays (AlexNet's features have passed its two hidden layers, as VGG's do in
    timm); SqueezeNet, which ends in a convolution, is pooled before it.
    """
    model = torchvision.models.get_model(name, weights=None, **OPTIONS.get(name, {}))
    if isinstance(model, SqueezeNet):
        model.num_features = 512
        model.classifier = nn.AdaptiveAvgPool2d(1)  # its forward flattens what comes out
    else:
        place, last = [(place, part) for place, part in model.named_modules() if isinstance(part, nn.Linear)][-1]
        model.num_features = last.in_features
        model.set_submodule(place, nn.Identity())
    if isinstance(model, MNASNet):
        _quicken_statistics(model)
    if channels != 3:
        _widen(model, channels)
    return model


def first_convolution(model: nn.Module) -> str:
    """The name of the convolution that sees the image."""
    return next((place for place, part in model.named_modules() if isinstance(part, nn.Conv2d)), "")


def _widen(model: nn.Module, channels: int) -> None:
    """Give the untrained first convolution another number of input channels, with as large an output."""
    place = first_convolution(model)
    old: Any = model.get_submodule(place)
    new = nn.Conv2d(channels, old.out_channels, old.kernel_size, old.stride, old.padding, bias=old.bias is not None)
    with torch.no_grad():
        new.weight.copy_(torch.randn_like(new.weight) * old.weight.std() * (old.in_channels / channels) ** 0.5)
    if old.bias is not None:
        new.bias = old.bias
    model.set_submodule(place, new)


def _quicken_statistics(model: nn.Module) -> None:
    """torchvision's MNASNet averages its statistics over thousands of batches, more than one short training has."""
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 0.1
