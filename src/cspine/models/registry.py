"""Models by name: `create_model` builds one, `list_models` knows the names without importing torch."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from cspine.config import Model
from cspine.errors import UserError
from cspine.modules import import_module, list_modules

if TYPE_CHECKING:
    from torch import nn

PACKAGE = "cspine.models"


def list_models() -> list[str]:
    besides = ("registry", "backbones", "torchvision_encoders", "weights", "inflate", "unet3d", "mirror")
    return list_modules(PACKAGE, besides)


def create_model(settings: Model, channels: int, outputs: int, pretrained: bool = True) -> "nn.Module":
    """Build the model that `settings.name` names; with `pretrained` false its weights are to be loaded afterwards."""
    if not pretrained:
        settings = dataclasses.replace(settings, pretrained=None, start=None)
    model = import_module(PACKAGE, settings.name, list_models(), "model.name").build(settings, channels, outputs)
    if settings.start is not None:
        _load(model, settings.start)
    _interleave_channels(model)
    return model


def _interleave_channels(model: "nn.Module") -> None:
    """Keep the weights of 2-D layers channels last, in which order one core learns up to twice as fast.

    Activations follow the weights. 3-D networks gain nothing.
    """
    import torch

    for weights in model.parameters():
        if weights.dim() == 4:
            weights.data = weights.data.contiguous(memory_format=torch.channels_last)


def _load(model: "nn.Module", start: str) -> None:
    """Parts of the model that the file does not know, such as study_classifier's of the patient, start anew."""
    from safetensors.torch import load_file

    if not Path(start).is_file():
        raise UserError(f"model.start={start}: no such file; make one with: python src/pretrain.py")
    try:
        state = load_file(start)
        parts = {key.partition(".")[0] for key in state}
        fresh = {key: value for key, value in model.state_dict().items() if key.partition(".")[0] not in parts}
        model.load_state_dict({**fresh, **state})
    except (RuntimeError, SafetensorError) as error:
        raise UserError(f"model.start={start}: does not fit this model ({str(error).splitlines()[0]})") from error
