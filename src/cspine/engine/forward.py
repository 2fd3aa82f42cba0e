"""Forward passes without gradients over the images of one study."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import nn

INPUTS = ("image", "attributes", "found", "box")


def model_inputs(batch: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    """What of a batch the model is called with, in its order: everything else is for the loss."""
    return [batch[name] for name in INPUTS if name in batch]


def mean_probabilities(
    models: Sequence[nn.Module], batches: Iterable[Mapping[str, np.ndarray]], device: torch.device, precision: str
) -> np.ndarray:
    """The mean over models of `model_probabilities`, float32 (images, outputs)."""
    return model_probabilities(models, batches, device, precision).mean(axis=0)


def model_probabilities(
    models: Sequence[nn.Module], batches: Iterable[Mapping[str, np.ndarray]], device: torch.device, precision: str
) -> np.ndarray:
    """The sigmoid of each model's logits, float32 (models, images, outputs); as `model_outputs`."""
    return _each_model(models, batches, device, precision, torch.sigmoid)


def model_outputs(
    models: Sequence[nn.Module], batches: Iterable[Mapping[str, np.ndarray]], device: torch.device, precision: str
) -> np.ndarray:
    """What each model says of each image, float32 (models, images, outputs).

    `batches` hold "image", uint8 (n, channels, y, x), and what else of INPUTS the models take. Half precision is used
    on CUDA only; the CPU computes in float32.
    """
    return _each_model(models, batches, device, precision, lambda outputs: outputs)


def _each_model(
    models: Sequence[nn.Module],
    batches: Iterable[Mapping[str, np.ndarray]],
    device: torch.device,
    precision: str,
    finish: Callable[[torch.Tensor], torch.Tensor],
) -> np.ndarray:
    threads = 1 if device.type == "cuda" else min(len(models), len(os.sched_getaffinity(0)))
    half = precision if device.type == "cuda" else "float32"

    @torch.inference_mode()
    def ask(model: nn.Module, inputs: list[torch.Tensor]) -> torch.Tensor:
        with torch.autocast(device.type, getattr(torch, half), enabled=half != "float32"):
            return finish(model(*inputs).float())

    rows = []
    # On a CPU the models share the cores: OpenMP inside one small model gains little and spins while it waits.
    with ThreadPoolExecutor(threads) as pool:
        for batch in batches:
            tensors = {name: torch.from_numpy(values).to(device, non_blocking=True) for name, values in batch.items()}
            outputs = list(pool.map(ask, models, [model_inputs(tensors)] * len(models)))
            rows.append(torch.stack(outputs).cpu().numpy())
    return np.concatenate(rows, axis=1)
