"""Models by name: `create_model` builds one, `list_models` knows the names without importing torch."""

import dataclasses
from typing import TYPE_CHECKING

from cspine.config import Model
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
        settings = dataclasses.replace(settings, pretrained=None)
    return import_module(PACKAGE, settings.name, list_models(), "model.name").build(settings, channels, outputs)
