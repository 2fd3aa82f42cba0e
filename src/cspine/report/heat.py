"""Where a head looks, on the report's voxels: in the most suspicious levels, by their probability."""

from typing import Any

import numpy as np
import torch

from cspine.data.preprocess import Crop
from cspine.inference import LoadedMember
from cspine.look_heat import look_heat
from cspine.report.frame import Frame
from cspine.tasks.base import StudyImages, find_task

# Of so many levels: a gradient costs more than the prediction.
LEVELS_SHOWN = 3
# Of a head that sees one slice: so thick is what it is drawn on.
SLICE_MM = 3.0


def draw_heat(
    member: LoadedMember,
    images: StudyImages,
    probabilities: np.ndarray,
    frame: Frame,
    crop: Crop,
    device: torch.device,
) -> np.ndarray:
    """float32 (z, y, x): of each level at most its probability, of `probabilities` (7,); by the member's first model.

    `images` are what the member infers from, cut by `crop`.
    """
    total = np.zeros(frame.shape, np.float32)
    task: Any = find_task(member.config.task)
    model, facts = member.models[0], member.facts[0]
    for level in np.argsort(-probabilities, kind="stable")[:LEVELS_SHOWN].tolist():
        look = task.look(model, member.config, images, facts, level, device)
        if look is None:
            continue
        planes = look_heat(model, look, device)
        share = planes / max(float(planes.max()), 1e-12) * float(probabilities[level])
        height_mm = None if len(planes) > 1 else SLICE_MM
        total = np.maximum(total, frame.sample_square(share, look.z_mm, crop, look.frame, height_mm))
    return total
