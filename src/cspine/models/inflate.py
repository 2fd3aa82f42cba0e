"""A 2-D convolutional network made 3-D, so that what it learned on images serves volumes (Carreira & Zisserman 2017).

Kernels are repeated over z and divided by their depth, or put into the middle plane. A volume that does not change in z
then gives in every plane what the 2-D network gives on that plane, and `inflate` proves it before it returns.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from timm.layers import BatchNormAct2d, SEModule
from timm.models._efficientnet_blocks import SqueezeExcite
from torch import nn
from torch.nn.functional import pad

from cspine.errors import UserError

# Of the features' own spread; rounding of sums in another order stays some hundred times below.
TOLERANCE = 1e-3


class EvenEndConv3d(nn.Conv3d):
    """A convolution that repeats the end planes in z: with zeros there, a constant volume would not stay constant."""

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        around = self.kernel_size[0] // 2
        if around:
            volume = pad(volume, (0, 0, 0, 0, around, around), mode="replicate")
        return super().forward(volume)


class ChannelGate3d(nn.Module):
    """Squeeze and excitation over volumes, from the layers of timm's for images."""

    def __init__(self, gate: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(_convert(getattr(gate, name), "mean", 1) for name in names))

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        return volume * self.layers(volume.mean((2, 3, 4), keepdim=True))


def inflate(network: nn.Module, features: Callable[[nn.Module, torch.Tensor], Any], how: str, depth: int) -> nn.Module:
    """A 3-D copy of `network`: convolutions, pools and norms gain a z axis, strides halve it as they halve y and x.

    `features` runs a network on a batch and gives a list of tensors. `how` is "mean" or "centre"; kernels span `depth`
    planes at most, and as many as rows. Raises UserError where the network has parts that are no convolutions: the
    inflated one is run on a volume constant in z and must give the features of the 2-D one.
    """
    inflated = _convert(copy.deepcopy(network), how, depth)
    _prove(network, inflated, features)
    return inflated


def _prove(network: nn.Module, inflated: nn.Module, features: Callable[[nn.Module, torch.Tensor], Any]) -> None:
    channels = next(layer.in_channels for layer in network.modules() if isinstance(layer, nn.Conv2d))
    side, depth = 32, 64  # unlike, so that a mix-up of axes shows
    image = torch.rand((1, channels, side, side), generator=torch.Generator().manual_seed(0)) * 2 - 1
    states = [(model, model.training) for model in (network, inflated)]
    try:
        with torch.no_grad():
            plain = features(network.eval(), image)
            volume = features(inflated.eval(), image[:, :, None].expand(-1, -1, depth, -1, -1))
        for one, many in zip(plain, volume, strict=True):
            if (many - one[:, :, None]).abs().max() > TOLERANCE * one.std():
                raise ValueError(f"on a volume constant in z features of {tuple(one.shape[1:])} differ")
    except (RuntimeError, ValueError, AssertionError, IndexError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{type(network).__name__} cannot be inflated to 3-D ({reason}); take a plain convolutional backbone such "
            "as resnet18 or mobilenetv3_small_050, or model.name=plain_unet"
        ) from error
    finally:
        for model, training in states:
            model.train(training)


def _convert(layer: nn.Module, how: str, depth: int) -> Any:
    """The 3-D twin of a layer, or the layer with its parts converted."""
    if isinstance(layer, nn.Conv2d):
        return _conv(layer, how, depth)
    if isinstance(layer, nn.BatchNorm2d):
        return _batch_norm(layer)
    if isinstance(layer, SqueezeExcite):
        return ChannelGate3d(layer, ("conv_reduce", "act1", "conv_expand", "gate"))
    if isinstance(layer, SEModule):
        return ChannelGate3d(layer, ("fc1", "bn", "act", "fc2", "gate"))
    if isinstance(layer, nn.MaxPool2d):
        return nn.MaxPool3d(layer.kernel_size, layer.stride, layer.padding, layer.dilation, ceil_mode=layer.ceil_mode)
    if isinstance(layer, nn.AvgPool2d):
        size: Any = {"kernel_size": layer.kernel_size, "stride": layer.stride, "padding": layer.padding}
        return nn.AvgPool3d(**size, ceil_mode=layer.ceil_mode, count_include_pad=layer.count_include_pad)
    for name, child in layer.named_children():
        setattr(layer, name, _convert(child, how, depth))
    return layer


def _conv(layer: nn.Conv2d, how: str, depth: int) -> EvenEndConv3d:
    if isinstance(layer.padding, str):
        raise UserError(f"a convolution with padding '{layer.padding}' cannot be inflated; take another backbone")
    rows, columns = layer.kernel_size
    spans = min(depth, rows)
    made = EvenEndConv3d(
        layer.in_channels,
        layer.out_channels,
        (spans, rows, columns),
        (layer.stride[0], layer.stride[0], layer.stride[1]),
        (0, layer.padding[0], layer.padding[1]),
        (1, layer.dilation[0], layer.dilation[1]),
        layer.groups,
        layer.bias is not None,
    )
    with torch.no_grad():
        made.weight.zero_()
        planes = range(spans) if how == "mean" else [spans // 2]
        for plane in planes:
            made.weight[:, :, plane] = layer.weight / len(planes)
        if layer.bias is not None and made.bias is not None:
            made.bias.copy_(layer.bias)
    return made


def _batch_norm(layer: nn.BatchNorm2d) -> nn.Module:
    made = nn.BatchNorm3d(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
    made.load_state_dict(layer.state_dict(), strict=False)  # a norm with activation holds nothing more
    # timm's norms bring their dropout and activation along.
    return nn.Sequential(made, layer.drop, layer.act) if isinstance(layer, BatchNormAct2d) else made
