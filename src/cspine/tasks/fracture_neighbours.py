"""Is a level fractured, by its nearest neighbours among those trained on (README, the method, phase 3).

Deep k-nearest-neighbours on the levels of fracture/level_volume: for small data. The bank of what it was trained on is
part of the weights.
"""

from typing import Any

import numpy as np
import torch
from torch import nn

from cspine.config import Config
from cspine.data.level_samples import LevelSamples
from cspine.engine.distributed import World
from cspine.engine.loop import predict
from cspine.errors import UserError
from cspine.models.neighbour_classifier import neighbour_loss
from cspine.tasks import fracture_level_volume

# Of either class in a batch, so that each sample has one of its own beside it.
FEWEST = 2


class Task(fracture_level_volume.Task):
    """Trains on the levels found in the studies outside the fold and predicts every study of the fold."""

    model_name = "neighbour_classifier"
    look = None  # type: ignore[assignment]  # a vote of neighbours has no gradient

    def __init__(self, config: Config, fold: int | None) -> None:
        negatives, batch = config.crop.negatives, config.train.batch_size
        if negatives is None or min(1.0, negatives) * batch < FEWEST * (1 + negatives):
            raise UserError(
                f"{config.name}: every batch needs {FEWEST} levels of either class; set crop.negatives to a number "
                "such as 1, and train.batch_size high enough"
            )
        super().__init__(config, fold)

    def training_samples(self) -> "MixedLevels":
        levels = super().training_samples()
        return MixedLevels(levels.studies, levels.levels, levels.config, levels.augment)

    def loss(self, outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return neighbour_loss(outputs, batch["fractured"], self.config.model.neighbours)

    def complete(self, model: nn.Module, world: World) -> None:
        """Fills the bank with all levels trained on, as they are."""
        samples = self._samples(self.training, augmented=False)
        network: Any = model
        outputs = predict(network.network, samples, self.config, world)
        network.remember(torch.from_numpy(outputs), torch.from_numpy(samples.fractured))


class MixedLevels(LevelSamples):
    """Levels of which an epoch draws either class evenly: all its batches have nearly the same share of both."""

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        drawn = super().draw(rng)
        place = np.empty(len(drawn))
        for kind in (self.fractured[drawn], ~self.fractured[drawn]):
            # Not in strict turns: of two processes that take turns too, each would get one class.
            place[kind] = (np.arange(kind.sum()) + rng.random(kind.sum())) / max(1, kind.sum())
        return drawn[np.argsort(place, kind="stable")]
