"""Levels of cached studies as training samples, and what boxes tell of their images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from cspine.config import Augment, Config
from cspine.data.boxes import StudyBoxes, boxes_in_cache, bridge_gaps
from cspine.data.cache import CachedStudy
from cspine.data.datasets import make_augmenter
from cspine.data.geometry import Geometry
from cspine.data.level_cells import UNKNOWN, SliceTruth, cell_truth, cells_per_side
from cspine.data.level_crops import LevelPlace, cut_level, draw_move, field_mm, image_z_mm, worn_place
from cspine.data.slices import nearest_slices
from cspine.errors import UserError

# Boxes so near to each other along z mean one fracture, and an image so near to a box is not said to show none.
BRIDGED_MM = 5.0
BESIDE_MM = 3.0
# A mask that says nothing. Models see 255 as 1 and this as 0, to a 255th: as an encoder without the channel does.
HIDDEN = 128

if TYPE_CHECKING:
    from cspine.data.augment import Augmenter


@dataclass(frozen=True, eq=False)
class Level:
    """One level of a study to train on or to predict."""

    study: int
    place: LevelPlace
    fractured: float = 0.0
    truth: SliceTruth | None = None


class Stack(Protocol):
    """What of a study crops are cut from: a cached one, or a level drawn alone."""

    @property
    def uid(self) -> str: ...

    @property
    def volume(self) -> np.ndarray: ...

    @property
    def geometry(self) -> Geometry: ...


@dataclass
class LevelSamples:
    """Levels of cached studies: `image` (slices, channels, y, x), `fractured`, its `weight`, and `slices` (slices,).

    With `model.cells` also `cells` (slices, cells, cells), what is known of parts of the images.
    """

    studies: Sequence[Stack]
    levels: list[Level]
    config: Config
    augment: Augment | None = None

    def __post_init__(self) -> None:
        crop = self.config.crop
        if crop.hide_mask + crop.wear_mask > 1:
            raise UserError(f"{self.config.name}: crop.hide_mask and crop.wear_mask are shares, together at most 1")
        self.fractured = np.array([level.fractured for level in self.levels], bool)
        self.repaint = None if self.augment is None else make_augmenter(grey_only(self.augment, self.config.name))

    def __len__(self) -> int:
        return len(self.levels)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        position, seed = key
        level, move = self.levels[position], None
        study = self.studies[level.study]
        if self.augment is not None and self.repaint is not None and seed >= 0 and self.repaint.takes(seed):
            move = draw_move(self.augment, seed)
        hidden, worn = self._masks(seed)
        place = worn_place(level.place, np.random.default_rng([seed, 5])) if worn else level.place
        image = cut_level(study.volume, study.geometry.z_mm, place, self.config, move)
        if move is not None and self.repaint is not None:
            image[:, :-1] = _repainted(image[:, :-1], self.repaint, seed)
        if hidden:
            image[:, -1] = HIDDEN
        indices = nearest_slices(study.geometry.z_mm, image_z_mm(level.place, self.config, move))
        seen = np.full(len(image), UNKNOWN) if level.truth is None else level.truth.seen[indices]
        sample = {
            "image": torch.from_numpy(image),
            "fractured": torch.tensor(level.fractured, dtype=torch.float32),
            "weight": torch.tensor(self._weight(level), dtype=torch.float32),
            "slices": torch.from_numpy(seen).float(),
        }
        if self.config.model.cells:
            side = cells_per_side(self.config.data.image_size_px)
            none = np.full((len(image), side, side), UNKNOWN, np.int8)
            known = none if level.truth is None else cell_truth(level.truth, indices, level.place, self.config, move)
            sample["cells"] = torch.from_numpy(known)
        return sample

    def _masks(self, seed: int) -> tuple[bool, bool]:
        """Whether a seed hides the level's mask, and whether it wears it; a plain sample shows it as it is."""
        if self.augment is None or seed < 0:
            return False, False
        drawn, crop = np.random.default_rng([seed, 4]).random(), self.config.crop
        return bool(drawn < crop.hide_mask), bool(crop.hide_mask <= drawn < crop.hide_mask + crop.wear_mask)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """All levels shuffled, or all fractured ones and `crop.negatives` others for each."""
        others = np.flatnonzero(~self.fractured)
        chosen = rng.choice(others, self._negatives, replace=False)
        return rng.permutation(np.concatenate([np.flatnonzero(self.fractured), chosen]))

    @property
    def _negatives(self) -> int:
        """How many levels without a fracture an epoch visits."""
        share, fractured = self.config.crop.negatives, int(self.fractured.sum())
        everything = len(self) - fractured
        return everything if share is None or not fractured else min(everything, round(share * fractured))

    def _weight(self, level: Level) -> float:
        """Each of the drawn others stands for so many, so that the probabilities stay those of all levels.

        Even, as metrics.even_weights, over the levels that an epoch draws.
        """
        fractured = int(self.fractured.sum())
        others, drawn = len(self) - fractured, self._negatives
        total = self.config.train.positive_weight * fractured + others
        return (1.0 if level.fractured else others / max(1, drawn)) * (fractured + drawn) / total


def grey_only(augment: Augment, name: str) -> Augment:
    """The transforms of grey values alone; the moves are those of data/level_crops.py.

    Raises UserError for transforms that level crops do not have.
    """
    for key in ("distortion", "mixup"):
        if getattr(augment, key):
            raise UserError(f"{name}: level crops are not transformed by augment.{key}; set it to 0")
    still = {"rotate_deg": 0.0, "shift_x": 0.0, "shift_y": 0.0, "scale": 0.0}
    return replace(augment, horizontal_flip=0.0, vertical_flip=0.0, **still)


def slices_known(
    place: LevelPlace, fractured: bool, boxes: StudyBoxes | None, study: CachedStudy, config: Config
) -> SliceTruth | None:
    """What is known of a study's slices about a level; None if nothing is.

    A level without a fracture shows none. Of one with a fracture, the slices tell whose boxes meet the level, and
    those further than BESIDE_MM from them.
    """
    z_mm = study.geometry.z_mm
    if not fractured:
        return SliceTruth(np.zeros(len(z_mm), np.int8), np.full((len(z_mm), 4), np.nan))
    if boxes is None:
        return None
    bridged = bridge_gaps(boxes, z_mm, BRIDGED_MM).boxes
    boxes_mm = _boxes_mm(boxes_in_cache(bridged, study.crop), study.crop.size_px, config)
    met = _meets(place, boxes_mm, z_mm, config)
    if not met.any():
        return None
    distance_mm = np.abs(z_mm[:, None] - z_mm[met]).min(axis=1)
    seen = np.where(met, 1, np.where(distance_mm > BESIDE_MM, 0, -1)).astype(np.int8)
    return SliceTruth(seen, np.where(met[:, None], boxes_mm, np.nan))


def _boxes_mm(boxes: np.ndarray, size_px: int, config: Config) -> np.ndarray:
    """(z, 4) left, top, right, bottom in mm from the middle of the field, of boxes in pixels of the cached square."""
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    return (corners / size_px - 0.5) * field_mm(config)


def _meets(place: LevelPlace, boxes_mm: np.ndarray, z_mm: np.ndarray, config: Config) -> np.ndarray:
    """bool (z,): the slice's box holds the middle of a voxel of the level."""
    ys, xs = (
        corner + (np.arange(size) + 0.5) * place.voxel_mm
        for corner, size in zip(place.corner_mm, place.probabilities.shape[1:], strict=True)
    )
    found = np.zeros(len(z_mm), bool)
    for z in np.flatnonzero(~np.isnan(boxes_mm[:, 0]) & (z_mm <= place.top_mm) & (z_mm >= place.bottom_mm)):
        left, top, right, bottom = boxes_mm[z]
        inside = ((ys >= top) & (ys <= bottom))[:, None] & (xs >= left) & (xs <= right)
        plane = place.probabilities[np.abs(place.plane_z_mm - z_mm[z]).argmin()]
        found[z] = (plane[inside] > 255 * config.crop.threshold).any()
    return found


def _repainted(image: np.ndarray, repaint: "Augmenter", seed: int) -> np.ndarray:
    """The grey values (slices, channels, y, x) transformed alike in all slices and channels."""
    flat = np.ascontiguousarray(image.reshape(-1, *image.shape[2:]).transpose(1, 2, 0))
    return repaint(flat, seed).image.transpose(2, 0, 1).reshape(image.shape)
