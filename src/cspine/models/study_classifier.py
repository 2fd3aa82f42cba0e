"""All levels of a patient at once: each through the sequence classifier, and the patient from what it saw of them.

The second form of the competition's first place. A level that is not found goes through no encoder and says nothing.
"""

from functools import partial

import torch
from torch import nn

from cspine.anatomy import LEVELS, TARGETS
from cspine.config import Model
from cspine.models.backbones import feature_count
from cspine.models.cells import create_encoder
from cspine.models.mirror import refuse_mirror
from cspine.models.sequence_classifier import SequenceClassifier


class StudyClassifier(SequenceClassifier):
    """Maps uint8 patients (n, 7, images, channels, y, x) and the levels found (n, 7) to logits (n, 8 + 7 * images).

    The patient's, its levels', then those of the images, level by level, and with `model.cells` those of their
    cells; 0 for a level that is not found.
    """

    def __init__(self, backbone: nn.Module, features: int, settings: Model) -> None:
        super().__init__(backbone, features, settings)
        self.patient = nn.Linear(self.head.in_features, 1)
        attends = self.settings.overall == "attention"
        self.level_weight = nn.Linear(self.head.in_features, 1) if attends else None

    def forward(self, images: torch.Tensor, found: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return self._with_mirror(partial(self._study_logits, found=found > 0), images)

    def _study_logits(self, images: torch.Tensor, found: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features, told = self.features(images[found])
        judged = self.judge(features, told)
        logits = judged.new_zeros(*found.shape, judged.shape[1])
        logits[found] = judged
        # A fracture is on few of a level's images.
        seen = features.float().amax(dim=1)
        patient = self.patient(self._patient_features(seen, found))
        cells = told.new_zeros(*found.shape, *told.shape[1:])
        cells[found] = told
        return torch.cat([patient, logits[:, :, 0], logits[:, :, 1:].flatten(1)], dim=1), cells

    def _patient_features(self, seen: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
        """(n, width) from those of the levels found, (levels found, width) in the order of `found` (n, 7)."""
        levels = seen.new_zeros(*found.shape, seen.shape[1])
        levels[found] = seen
        if self.level_weight is None:
            greatest = levels.masked_fill(~found[..., None], -torch.inf).amax(dim=1)
            return greatest.masked_fill(~found.any(dim=1)[:, None], 0.0)
        scores = self.level_weight(levels).squeeze(-1).float()
        # Not -inf: of a patient without any level the weights would be no numbers.
        weights = scores.masked_fill(~found, torch.finfo(scores.dtype).min).softmax(dim=1)
        return (weights[..., None] * levels).sum(dim=1)


def build(settings: Model, channels: int, outputs: int) -> StudyClassifier:
    """The model for images of `channels` and, besides, the level's mask."""
    if outputs != len(TARGETS):
        raise ValueError(f"study_classifier judges the patient and {len(LEVELS)} levels, not {outputs} things")
    refuse_mirror(settings, " and model.sequence.flip_at_test=true")
    backbone = create_encoder(settings, channels + 1)
    return StudyClassifier(backbone, feature_count(backbone), settings)
