"""Slices of cached studies with the boxes about their fractures, for detectors."""

from dataclasses import dataclass, field

import numpy as np
import torch

from cspine.config import Data
from cspine.data.boxes import boxes_in_cache
from cspine.data.datasets import SliceSamples
from cspine.data.preprocess import Crop
from cspine.data.slices import MINIMUM_PRESENCE, margin_px, slice_image


@dataclass
class BoxSamples(SliceSamples):
    """Slices to train a detector on: beside `image` the `box` (4,), left, top, right and bottom, NaN for none.

    `boxes` (n, 4) are x, y, width, height in pixels of the image, NaN where a slice shows no fracture.
    """

    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    negatives: float = 1.0

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """All slices with a box, and for each `negatives` without one."""
        boxed = ~np.isnan(self.boxes[:, 0])
        others = np.flatnonzero(~boxed)
        count = min(len(others), round(self.negatives * boxed.sum()))
        return rng.permutation(np.concatenate([np.flatnonzero(boxed), rng.choice(others, count, replace=False)]))

    def _sample(self, position: int, seed: int) -> dict[str, torch.Tensor]:
        image = slice_image(self.studies[self.study[position]].volume, self.neighbours[position], self.settings)
        boxes = self.boxes[position][None]
        boxes = boxes[~np.isnan(boxes[:, 0])]
        if self.augmenter is not None and seed >= 0:
            moved = self.augmenter(image, seed, boxes=boxes)
            image, boxes = moved.image, np.zeros((0, 4)) if moved.boxes is None else moved.boxes
        box = np.full(4, np.nan, np.float32)
        if len(boxes):
            box[:2], box[2:] = boxes[0, :2], boxes[0, :2] + boxes[0, 2:]
        return {
            "image": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            "box": torch.from_numpy(box),
        }


def slices_to_learn(boxed: np.ndarray, presence: np.ndarray, fractured: np.ndarray) -> np.ndarray:
    """The slices of a study, by index, that say something: those with a box (z,) bool, and those without a fracture.

    `presence` (z, 7) is stage 1's, `fractured` (7,) the study's labels. A slice of a fractured level without a box says
    nothing: boxes have gaps, and most fractured studies have none at all.
    """
    seen = presence > MINIMUM_PRESENCE
    return np.flatnonzero(boxed | (seen.any(axis=1) & ~(seen & (fractured > 0)).any(axis=1)))


def boxes_in_image(boxes: np.ndarray, crop: Crop, settings: Data) -> np.ndarray:
    """(n, 4) boxes of the volume as x, y, width, height in pixels of the model's image; NaN for what lies outside."""
    cached = boxes_in_cache(boxes, crop)
    margin, ratio = _to_image(crop.size_px, settings)
    corners = (np.concatenate([cached[:, :2], cached[:, :2] + cached[:, 2:]], axis=1) - margin) * ratio
    corners = corners.clip(0, settings.image_size_px)
    corners[~(corners[:, :2] < corners[:, 2:]).all(axis=1)] = np.nan
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def corners_in_volume(corners: np.ndarray, crop: Crop, settings: Data) -> np.ndarray:
    """(n, 4) left, top, right, bottom in pixels of the model's image as those of the original slices' pixel edges.

    The inverse of what `boxes_in_image` does, as a box of the table: x covers the pixels from x on.
    """
    margin, ratio = _to_image(crop.size_px, settings)
    cached = corners / ratio + margin - 0.5
    top, left = crop.to_original(cached[:, 1], cached[:, 0])
    bottom, right = crop.to_original(cached[:, 3], cached[:, 2])
    return np.stack([left, top, right, bottom], axis=1) + 0.5


def _to_image(side: int, settings: Data) -> tuple[int, float]:
    """The margin of the cached square that the image leaves out, and the image's pixels for one of the cache."""
    margin = margin_px(side, settings)
    return margin, settings.image_size_px / (side - 2 * margin)
