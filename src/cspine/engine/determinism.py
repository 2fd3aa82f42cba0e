"""Random draws follow from the seed, the epoch and the sample, never from the workers or from a restart."""

import random
from typing import Any

import cv2
import numpy as np
import torch


def set_determinism(seed: int) -> None:
    """Seed Python, NumPy and torch, and make torch choose reproducible kernels where it has them."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries below us still draw from the global generator
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False


def seed_worker(worker: int) -> None:
    """Start a data-loader worker: its samples seed themselves, and it must not start threads of its own."""
    del worker
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def random_state(device: torch.device) -> dict[str, Any]:
    """The state of the generators that layers such as dropout draw from, as tensors."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
