"""Training samples read from the cache."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from cspine.config import Augment, Data
from cspine.data.cache import CachedStudy
from cspine.data.mixup import draw_partner, mix
from cspine.data.slices import neighbour_indices, slice_image, slices_per_image

if TYPE_CHECKING:
    from cspine.data.augment import Augmenter


@dataclass
class SliceSamples:
    """Slices of cached studies.

    `study` and `index` (n,) name each sample's study and slice; `targets` are float arrays (n, ...) that travel with
    the images, for the loss or, beside the image, for the model. A sample is drawn by (position, seed); a seed below 0
    leaves it unaugmented.
    """

    studies: list[CachedStudy]
    study: np.ndarray
    index: np.ndarray
    settings: Data
    augment: Augment | None = None
    targets: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.augmenter = make_augmenter(self.augment) if self.augment is not None else None
        self.neighbours = np.zeros((len(self.index), slices_per_image(self.settings)), int)
        for number, study in enumerate(self.studies):
            mine = self.study == number
            self.neighbours[mine] = neighbour_indices(study.geometry.z_mm, self.index[mine], self.settings)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        position, seed = key
        sample = self._sample(position, seed)
        if self.augment is None or self.augmenter is None or not self.augment.mixup or seed < 0:
            return sample
        if not self.augmenter.takes(seed):
            return sample
        partner = draw_partner(seed, self.augment.mixup, len(self))
        return mix(sample, self._sample(partner.position, partner.seed), partner.weight)

    def _sample(self, position: int, seed: int) -> dict[str, torch.Tensor]:
        volume = self.studies[self.study[position]].volume
        image = slice_image(volume, self.neighbours[position], self.settings)
        if self.augmenter is not None and seed >= 0:
            image = self.augmenter(image, seed).image
        sample = {"image": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))}
        for name, values in self.targets.items():
            sample[name] = torch.as_tensor(values[position], dtype=torch.float32)
        return sample

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """All samples shuffled, or `slices_per_study` of each study."""
        limit = self.settings.slices_per_study
        if limit is None:
            return rng.permutation(len(self))
        groups = [np.flatnonzero(self.study == number) for number in range(len(self.studies))]
        chosen = [rng.choice(group, min(limit, len(group)), replace=False) for group in groups]
        return rng.permutation(np.concatenate(chosen)) if chosen else np.zeros(0, int)


def make_augmenter(settings: Augment) -> "Augmenter":
    """The transforms of training. Imported late: they need albumentations, which the kernel's machine may lack."""
    from cspine.data.augment import Augmenter

    return Augmenter(settings)
