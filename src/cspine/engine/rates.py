"""How fast each parameter learns, and how that changes over the steps."""

import math
from typing import Any

import torch
from timm.models import group_parameters
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from cspine.config import Train
from cspine.errors import UserError


def parameter_groups(model: nn.Module, settings: Train) -> list[dict[str, Any]]:
    """The optimiser's groups of parameters, each with its greatest rate.

    With `layer_decay` below 1 the layers of the encoder, grouped as timm groups them, learn the slower the earlier they
    come (Bao et al. 2022). Raises UserError for a model whose encoder does not tell the order of its layers.
    """
    if settings.layer_decay == 1:
        return [{"params": list(model.parameters()), "lr": settings.max_rate}]
    layer_of = _encoder_layers(model)
    last = max(layer_of.values())
    by_layer: dict[int, list[nn.Parameter]] = {}
    for parameter in model.parameters():
        by_layer.setdefault(layer_of.get(parameter, last), []).append(parameter)
    return [
        {"params": by_layer[layer], "lr": settings.max_rate * settings.layer_decay ** (last - layer)}
        for layer in sorted(by_layer)
    ]


def _encoder_layers(model: nn.Module) -> dict[nn.Parameter, int]:
    """The number of the layer of each parameter of the encoder: the part with timm's `group_matcher`."""
    encoder: Any = next((part for part in model.modules() if hasattr(part, "group_matcher")), None)
    if encoder is None:
        raise UserError(
            f"train.layer_decay: the encoder of this {type(model).__name__} does not tell the order of its layers; set "
            "it to 1, or take a timm backbone such as resnet18"
        )
    number = group_parameters(encoder, encoder.group_matcher(coarse=False), reverse=True)
    return {parameter: number[name] for name, parameter in encoder.named_parameters()}


def rate_schedule(optimizer: torch.optim.Optimizer, settings: Train, total_steps: int) -> LRScheduler:
    """One step of it for each of the optimiser's; each group comes to the rate that it has now."""
    if settings.schedule == "one_cycle":
        rates = [group["lr"] for group in optimizer.param_groups]
        return OneCycleLR(optimizer, max_lr=rates, total_steps=max(total_steps, 2))
    warm = round(settings.warmup * total_steps)

    def share(step: int) -> float:
        if step < warm:
            return (step + 1) / (warm + 1)
        return (1 + math.cos(math.pi * (step - warm) / max(1, total_steps - warm))) / 2

    return LambdaLR(optimizer, share)
