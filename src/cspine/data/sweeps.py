"""A study as a sequence of slices: evenly spaced in mm over the neck, so that the scanner does not matter."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cspine.config import Sweep
from cspine.data.slices import nearest_slices, visible_slices


def sweep_indices(z_mm: np.ndarray, presence: np.ndarray, settings: Sweep) -> np.ndarray:
    """The slices (n,) nearest to the middles of equal parts of what stage 1, presence (z, 7), sees; cranial first.

    The parts are `step_mm` high, or higher where that would be more than `slices`. A slice of a thick stack serves
    several. None where no level is seen at all.
    """
    seen_mm = z_mm[visible_slices(presence)]
    if not len(seen_mm):
        return np.zeros(0, int)
    length_mm = seen_mm[0] - seen_mm[-1]
    count = int(np.clip(round(length_mm / settings.step_mm), 1, settings.slices))
    return nearest_slices(z_mm, seen_mm[0] - (np.arange(count) + 0.5) / count * length_mm)


@dataclass(frozen=True, eq=False)
class SweepSamples:
    """Studies as sequences of their slices' features, filled up with zeros to `slices`.

    `image` (slices, width) the features, `attributes` (slices, 7) stage 1's probabilities, `found` (slices,) 1 where
    there is a slice, `fractured` (8,) the labels, and their `weight` (8,).
    """

    features: Sequence[np.ndarray]  # (n, width) each
    presence: Sequence[np.ndarray]  # (n, 7) each
    fractured: np.ndarray  # (studies, 8)
    weight: np.ndarray  # (studies, 8)
    slices: int

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        position, _ = key
        features, presence = self.features[position], self.presence[position]
        return {
            "image": torch.from_numpy(self._filled(features)),
            "attributes": torch.from_numpy(self._filled(presence.astype(np.float32))),
            "found": torch.from_numpy(self._filled(np.ones(len(features), np.float32))),
            "fractured": torch.from_numpy(self.fractured[position].astype(np.float32)),
            "weight": torch.from_numpy(self.weight[position].astype(np.float32)),
        }

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(len(self))

    def _filled(self, values: np.ndarray) -> np.ndarray:
        filled = np.zeros((self.slices, *values.shape[1:]), values.dtype)
        filled[: len(values)] = values
        return filled
