"""Which levels are on a slice, from the image and the slice's attributes (the method of README, phase 2b)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from cspine.config import Config
from cspine.data.attributes import slice_attributes
from cspine.data.datasets import SliceSamples
from cspine.engine.forward import model_probabilities
from cspine.errors import UserError
from cspine.slice_table import mean_in_order
from cspine.tasks import vertebra_image
from cspine.tasks.base import StudyImages


class Task(vertebra_image.Task):
    """As vertebra/image, with the attributes of each slice beside its image."""

    def __init__(self, config: Config, fold: int | None) -> None:
        if config.model.name != "attribute_classifier":
            raise UserError(
                f"{config.name}: task=vertebra/attributes needs model.name=attribute_classifier, "
                f"not {config.model.name}"
            )
        super().__init__(config, fold)

    def training_samples(self) -> SliceSamples:
        return _with_attributes(super().training_samples())

    def prediction_samples(self) -> SliceSamples:
        return _with_attributes(super().prediction_samples())

    @staticmethod
    def infer(
        models: Sequence[nn.Module],
        config: Config,
        images: StudyImages,
        facts: Sequence[dict[str, Any]],
        device: torch.device,
    ) -> np.ndarray:
        """The probability of each level on each slice, (z, 7)."""
        attributes = slice_attributes(images.z_mm, images.thickness_mm)
        batches = images.batches(np.arange(len(images.volume)), config, attributes=attributes)
        raw = model_probabilities(models, batches, device, config.train.precision)
        return mean_in_order(raw, images.z_mm, facts, config.order.evidence_mm)


def _with_attributes(samples: SliceSamples) -> SliceSamples:
    """The samples, which hold every slice of their studies, each with its attributes."""
    rows = [slice_attributes(study.geometry.z_mm, study.geometry.thickness_mm) for study in samples.studies]
    attributes = np.concatenate(rows) if rows else np.zeros((0, 3), np.float32)
    return replace(samples, targets={**samples.targets, "attributes": attributes})
