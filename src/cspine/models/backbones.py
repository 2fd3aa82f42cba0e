"""Image encoders from timm, with local or downloaded pre-trained weights, for any number of input channels."""

import os
import socket
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch import nn

from cspine.config import Model
from cspine.errors import UserError, nearest

HUB = ("huggingface.co", 443)
PREFIX = "backbone."  # of the encoder in the weights of our own runs


def create_backbone(settings: Model, channels: int) -> nn.Module:
    """A timm model that maps (n, channels, y, x) to (n, num_features).

    Pre-trained first convolutions are adapted to `channels` by timm. Raises UserError for an unknown name, a missing
    or unfitting weight file, and for `imagenet` without a network.
    """
    name = settings.backbone
    if not timm.is_model(name):
        raise UserError(f"model.backbone={name}: timm has no such model; {nearest(name, timm.list_models())}")
    options: dict[str, Any] = {"in_chans": channels, "num_classes": 0}
    if settings.pretrained is None:
        return timm.create_model(name, pretrained=False, **options)
    if settings.pretrained == "imagenet":
        return _from_hub(name, options)
    return _from_file(name, Path(settings.pretrained), options)


def _from_hub(name: str, options: dict[str, Any]) -> nn.Module:
    if not timm.is_model_pretrained(name):
        raise UserError(f"model.pretrained=imagenet: timm has no weights for {name}; use null or a file")
    try:
        # Without this look, an unreachable hub is retried for minutes.
        if not os.environ.get("HF_HUB_OFFLINE"):
            socket.create_connection(HUB, timeout=5).close()
        return timm.create_model(name, pretrained=True, **options)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"model.pretrained=imagenet: the weights of {name} cannot be fetched ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}); without a network set model.pretrained=null or to a local .pth or "
            ".safetensors file, or HF_HUB_OFFLINE=1 where the hub's cache holds them"
        ) from error


def _from_file(name: str, file: Path, options: dict[str, Any]) -> nn.Module:
    if not file.is_file():
        raise UserError(f"model.pretrained={file}: no such file; give null, imagenet or a .pth or .safetensors file")
    state = _read_encoder(file)
    expected = timm.create_model(name, pretrained=False, num_classes=0).state_dict()
    # timm passes over what a file lacks; half a pre-trained encoder is worse than an error.
    if missing := sorted(key for key in expected.keys() - state.keys() if not key.endswith("num_batches_tracked")):
        raise UserError(f"model.pretrained={file}: does not fit {name}; {missing[0]} is not in it")
    overlay = {"state_dict": state}
    try:
        return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    except (RuntimeError, KeyError, ValueError, NotImplementedError) as error:
        raise UserError(f"model.pretrained={file}: does not fit {name} ({str(error).splitlines()[0]})") from error


def _read_encoder(file: Path) -> dict[str, torch.Tensor]:
    """The encoder's weights in a file: of a run of ours, or an encoder's own."""
    if file.suffix == ".safetensors":
        state = load_file(file)
    else:
        state = torch.load(file, map_location="cpu", weights_only=True)
    ours = {key.removeprefix(PREFIX): value for key, value in state.items() if key.startswith(PREFIX)}
    return ours or state
