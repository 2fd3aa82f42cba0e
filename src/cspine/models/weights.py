"""An encoder's weights from a local file: .pth, .safetensors, of a run of ours, or .npz in Caffe's convention."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from cspine.errors import UserError

PREFIX = "backbone."  # of the encoder in the weights of our own runs
CAFFE_MEAN = (104.0, 117.0, 123.0)  # blue, green, red


def read_encoder(file: Path, stem: str, convolution: Any) -> dict[str, torch.Tensor]:
    """The encoder's state dict; `stem` names its first `convolution`.

    An .npz holds weights for BGR images of 0..255 minus CAFFE_MEAN; they are turned into weights for our images of
    -1..1 in RGB. Raises UserError for a missing or unreadable file.
    """
    state = read_state(file)
    if file.suffix == ".npz":
        return fold_caffe_input(state, stem, convolution, file)
    # Of our own runs the encoder, and of one that asks cells the backbone within it.
    while ours := {key.removeprefix(PREFIX): value for key, value in state.items() if key.startswith(PREFIX)}:
        state = ours
    return state


def read_state(file: Path) -> dict[str, torch.Tensor]:
    """All weights in a file. Raises UserError for a missing one."""
    if not file.is_file():
        raise UserError(
            f"model.pretrained={file}: no such file; give null, imagenet or a .pth, .safetensors or .npz file"
        )
    if file.suffix == ".npz":
        with np.load(file) as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays}
    if file.suffix == ".safetensors":
        return load_file(file)
    state: dict[str, torch.Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return state


def fold_caffe_input(
    state: dict[str, torch.Tensor], stem: str, convolution: Any, file: Path
) -> dict[str, torch.Tensor]:
    """The same function of another input: RGB images x in -1..1 instead of BGR images p - mean, p in 0..255.

    With p = 127.5 (x + 1), sum_c W_c (p_c - m_c) + b = sum_c (127.5 W_c) x_c + [b + sum_c (127.5 - m_c) sum_k W_ck],
    k over the kernel. Padding would add zeros to p - m but other values to x, so it must be absent.
    """
    if f"{stem}.weight" not in state or f"{stem}.bias" not in state or any(convolution.padding):
        raise UserError(
            f"model.pretrained={file}: an .npz needs a first convolution with a bias and without padding, to take "
            "up the mean; use a .pth or .safetensors file for this backbone"
        )
    weight, bias = state[f"{stem}.weight"].double(), state[f"{stem}.bias"].double()
    mean = torch.tensor(CAFFE_MEAN, dtype=torch.float64)
    shift = ((127.5 - mean) * weight.sum(dim=(2, 3))).sum(dim=1)
    return {
        **state,
        f"{stem}.weight": (127.5 * weight).flip(1).float(),
        f"{stem}.bias": (bias + shift).float(),
    }
