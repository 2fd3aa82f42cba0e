"""Which levels are fractured on a slice, by soft labels (the first half of the competition's third place).

f_ij = v_ij where level j of the study is fractured, else 0: as much of a fracture as stage 1 sees of its level. Seven
outputs from the image alone; p_j = sum_i f_ij v_ij / sum_i v_ij as in all slice heads. `fracture/recurrent` is the
second half, on this one's encoder.
"""

import numpy as np

from cspine.anatomy import LEVELS
from cspine.tasks import fracture_slice


class Task(fracture_slice.Task):
    """As fracture/slice, but an output and a soft label for each level."""

    outputs = len(LEVELS)

    @staticmethod
    def targets(presence: np.ndarray, fractured: np.ndarray) -> dict[str, np.ndarray]:
        return {"fractured": presence * fractured}

    @staticmethod
    def fractured(probabilities: np.ndarray) -> np.ndarray:
        return probabilities
