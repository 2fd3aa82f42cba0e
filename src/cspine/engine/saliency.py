"""What of an image moves a logit: the gradient, smoothed over noise (SmoothGrad, Smilkov et al. 2017).

It asks nothing of a model but that it can be differentiated, so it serves slices, sequences and volumes alike.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from cspine.engine.forward import model_inputs

SAMPLES = 8
NOISE = 0.1  # standard deviation, as a share of the grey range


def smooth_gradient(model: nn.Module, batch: Mapping[str, np.ndarray], output: int, device: torch.device) -> np.ndarray:
    """Size of the gradient of one logit of a batch of one sample by "image", float32 of that shape."""
    inputs = {name: torch.from_numpy(values).to(device) for name, values in batch.items()}
    image, generator = inputs["image"].float(), torch.Generator().manual_seed(0)
    total = torch.zeros_like(image)
    model.eval()
    # cuDNN's recurrent networks give no gradients in evaluation.
    with torch.backends.cudnn.flags(enabled=False):
        for _ in range(SAMPLES):
            noise = torch.randn(image.shape, generator=generator).to(device)
            noisy = (image + 255 * NOISE * noise).requires_grad_()
            logit = model(*model_inputs({**inputs, "image": noisy}))[0, output]
            total += torch.autograd.grad(logit, noisy)[0]
    return (total / SAMPLES).abs().cpu().numpy()
