"""Which levels are fractured on a slice, from the image and stage 1's view of it (the method of README, phase 3b).

The seven vertebra probabilities v_ij of a slice are an input beside its image; the seven labels are the study's own,
and each counts in the loss as far as its level is on the slice. p_j = sum_i f_ij v_ij / sum_i v_ij.
"""

import numpy as np
import torch
from torch.nn.functional import softplus

from cspine.anatomy import LEVELS
from cspine.config import Config
from cspine.tasks import fracture_slice
from cspine.tasks.head import require_model


class Task(fracture_slice.Task):
    """As fracture/slice, but seven outputs, and the levels of a slice as an input."""

    outputs = len(LEVELS)

    def __init__(self, config: Config, fold: int | None) -> None:
        require_model(config, "presence_classifier")
        super().__init__(config, fold)

    def loss(self, outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return presence_weighted_loss(outputs, batch, self.config.train.positive_weight)

    @staticmethod
    def targets(presence: np.ndarray, fractured: np.ndarray) -> dict[str, np.ndarray]:
        return presence_weighted_targets(presence, fractured)

    @staticmethod
    def fractured(probabilities: np.ndarray) -> np.ndarray:
        return probabilities[:, : len(LEVELS)]

    @staticmethod
    def inputs(presence: np.ndarray) -> dict[str, np.ndarray]:
        return {"attributes": presence.astype(np.float32)}


def presence_weighted_targets(presence: np.ndarray, fractured: np.ndarray) -> dict[str, np.ndarray]:
    """How much of a fractured and of a sound level each slice shows: v y and v (1 - y), (n, 7).

    Two targets rather than v and y, so that the loss of a mixed sample is the mix of the losses.
    """
    return {"fractured": presence * fractured, "sound": presence * (1 - fractured)}


def presence_weighted_loss(
    outputs: torch.Tensor, batch: dict[str, torch.Tensor], positive_weight: float
) -> torch.Tensor:
    """Binary cross entropy of the first seven logits, each level weighted by its presence; fractured ones more."""
    logits = outputs[:, : len(LEVELS)]
    fractured, sound = positive_weight * batch["fractured"], batch["sound"]
    total = (fractured * softplus(-logits) + sound * softplus(logits)).sum()
    return total / (fractured + sound).sum()
