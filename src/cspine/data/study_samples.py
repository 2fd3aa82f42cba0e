"""Patients as training samples: the images of all their levels at once."""

from collections.abc import Sequence

import numpy as np
import torch

from cspine.data.level_cells import UNKNOWN
from cspine.data.level_samples import LevelSamples
from cspine.metrics import study_weights


class StudySamples:
    """The studies in which levels are found, one sample each.

    `image` (7, slices, channels, y, x), 0 where a level is not `found` (7,), `fractured` (8,) the patient and its
    levels, `weight` (8,) theirs in the loss, `slices` (7, slices), what is known of the images, and with
    `model.cells` of their `cells`. One draw moves all levels of a patient alike.
    """

    def __init__(self, levels: LevelSamples, positions: np.ndarray, fractured: np.ndarray) -> None:
        """`positions` (studies, 7) are those of the studies' levels among `levels`, -1 for one that is not found."""
        self.levels = levels
        kept = np.flatnonzero(np.any(positions >= 0, axis=1))
        self.studies = [levels.studies[int(number)] for number in kept]
        self.positions, self.fractured = positions[kept], fractured[kept]
        self.weights = study_weights(self.fractured, self.found, levels.config.train.positive_weight)

    @property
    def found(self) -> np.ndarray:
        """bool (studies, 7)."""
        return self.positions >= 0

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        number, seed = key
        samples = [None if position < 0 else self.levels[int(position), seed] for position in self.positions[number]]

        def gathered(key: str, absent: float = 0) -> torch.Tensor:
            values = [None if sample is None else sample[key].numpy() for sample in samples]
            return torch.from_numpy(all_levels(values, absent))

        made = {
            "image": gathered("image"),
            "found": torch.from_numpy(self.found[number].astype(np.float32)),
            "fractured": torch.from_numpy(self.fractured[number].astype(np.float32)),
            "weight": torch.from_numpy(self.weights[number].astype(np.float32)),
            "slices": gathered("slices", UNKNOWN),
        }
        if self.levels.config.model.cells:
            made["cells"] = gathered("cells", UNKNOWN)
        return made

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(len(self))


def all_levels(values: Sequence[np.ndarray | None], absent: float = 0) -> np.ndarray:
    """(7, ...) of the levels' values, `absent` for one that has none. At least one has."""
    like = next(value for value in values if value is not None)
    return np.stack([np.full_like(like, absent) if value is None else value for value in values])
