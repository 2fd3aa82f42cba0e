"""Is a level fractured, from a volume of it alone (README, the method, phase 3d; the competition's fourth place).

The images of fracture/sequence, stacked, with the level's mask as a channel, through a 3-D network.
"""

from torch import nn

from cspine.config import Config
from cspine.errors import UserError
from cspine.tasks import fracture_sequence
from cspine.tasks.base import starting_model


class Task(fracture_sequence.Task):
    """Trains on the levels found in the studies outside the fold and predicts every study of the fold."""

    model_name = "level_volume_classifier"

    def __init__(self, config: Config, fold: int | None) -> None:
        if config.data.neighbours:
            raise UserError(f"{config.name}: a volume has no neighbouring slices as channels; set data.neighbours=0")
        if config.crop.boxes:
            raise UserError(f"{config.name}: {config.task} judges a level as one; set crop.boxes=0")
        super().__init__(config, fold)

    def model(self) -> nn.Module:
        return starting_model(self.config, self.fold, self.outputs)
