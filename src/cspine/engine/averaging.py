"""The mean of the weights of several epochs needs statistics of its own in its batch norms (Izmailov et al. 2018)."""

from collections.abc import Iterable, Mapping

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from cspine.engine.distributed import World
from cspine.engine.forward import model_inputs


def refresh_statistics(model: nn.Module, batches: Iterable[Mapping[str, torch.Tensor]], world: World) -> None:
    """Give every batch norm the mean of its statistics over these batches, and over the processes.

    Nothing else is in training mode, so dropout and stochastic depth draw nothing, and equal batches give equal bits.
    """
    norms = [part for part in model.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for a plain mean
        norm.train()
    with torch.no_grad():
        for batch in batches:
            model(*[values.to(world.device, non_blocking=True) for values in model_inputs(batch)])
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        for values in (norm.running_mean, norm.running_var):
            assert values is not None
            values.copy_(torch.stack(world.gather(values.cpu())).mean(dim=0))
    model.eval()
