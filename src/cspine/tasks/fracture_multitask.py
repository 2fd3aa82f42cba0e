"""Which levels are on a slice and which are fractured, from the image alone (the method of README, phase 3c).

One encoder answers both questions; the loss is that of fracture/multimodal plus the vertebrae's binary cross entropy,
whose targets are stage 1's probabilities. p_j = sum_i f_ij v_ij / sum_i v_ij with stage 1's v_ij, as in all heads.
"""

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from cspine.anatomy import LEVELS
from cspine.tasks import fracture_slice
from cspine.tasks.fracture_multimodal import presence_weighted_loss, presence_weighted_targets


class Task(fracture_slice.Task):
    """As fracture/slice, but fourteen outputs: seven levels fractured, seven levels there."""

    outputs = 2 * len(LEVELS)

    def loss(self, outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        presence = batch["fractured"] + batch["sound"]
        vertebrae = binary_cross_entropy_with_logits(outputs[:, len(LEVELS) :], presence)
        return presence_weighted_loss(outputs, batch, self.config.train.positive_weight) + vertebrae

    @staticmethod
    def targets(presence: np.ndarray, fractured: np.ndarray) -> dict[str, np.ndarray]:
        return presence_weighted_targets(presence, fractured)

    @staticmethod
    def fractured(probabilities: np.ndarray) -> np.ndarray:
        return probabilities[:, : len(LEVELS)]
