"""Forward passes without gradients over the images of one study."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import nn


@torch.inference_mode()
def mean_probabilities(
    models: Sequence[nn.Module], batches: Iterable[np.ndarray], device: torch.device, precision: str
) -> np.ndarray:
    """The mean over models of the sigmoid of their logits, float32 (images, outputs).

    `batches` are uint8 (n, channels, y, x). Half precision is used on CUDA only; the CPU computes in float32.
    """
    half = precision if device.type == "cuda" else "float32"
    rows = []
    for batch in batches:
        images = torch.from_numpy(batch).to(device, non_blocking=True)
        with torch.autocast(device.type, getattr(torch, half), enabled=half != "float32"):
            outputs = [model(images).float().sigmoid() for model in models]
        rows.append(torch.stack(outputs).mean(dim=0).cpu().numpy())
    return np.concatenate(rows)
