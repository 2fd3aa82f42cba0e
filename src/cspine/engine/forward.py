"""Forward passes without gradients over the images of one study."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import nn


def mean_probabilities(
    models: Sequence[nn.Module], batches: Iterable[np.ndarray], device: torch.device, precision: str
) -> np.ndarray:
    """The mean over models of `model_probabilities`, float32 (images, outputs)."""
    return model_probabilities(models, batches, device, precision).mean(axis=0)


def model_probabilities(
    models: Sequence[nn.Module], batches: Iterable[np.ndarray], device: torch.device, precision: str
) -> np.ndarray:
    """The sigmoid of each model's logits, float32 (models, images, outputs).

    `batches` are uint8 (n, channels, y, x). Half precision is used on CUDA only; the CPU computes in float32.
    """
    threads = 1 if device.type == "cuda" else min(len(models), len(os.sched_getaffinity(0)))
    half = precision if device.type == "cuda" else "float32"

    @torch.inference_mode()
    def probabilities(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, getattr(torch, half), enabled=half != "float32"):
            return model(images).float().sigmoid()

    rows = []
    # On a CPU the models share the cores: OpenMP inside one small model gains little and spins while it waits.
    with ThreadPoolExecutor(threads) as pool:
        for batch in batches:
            images = torch.from_numpy(batch).to(device, non_blocking=True)
            outputs = list(pool.map(probabilities, models, [images] * len(models)))
            rows.append(torch.stack(outputs).cpu().numpy())
    return np.concatenate(rows, axis=1)
