"""Random transforms of training images, with their masks and boxes: the only file that knows albumentations."""

import os
import random
from typing import NamedTuple

import cv2
import numpy as np

# At its import albumentations otherwise asks the network for a newer version.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
import albumentations as A

from cspine.config import Augment

SMALLEST_BOX_PX = 1


class Augmented(NamedTuple):
    """A sample; `mask` and `boxes` are None where none were given."""

    image: np.ndarray
    mask: np.ndarray | None = None
    boxes: np.ndarray | None = None


class Augmenter:
    """Applies the transforms that are switched on; the same draw for all channels of an image.

    Mixup needs a second sample and so is not done here but by the data set (data/mixup.py).
    """

    def __init__(self, settings: Augment) -> None:
        self.share = settings.share
        boxes = A.BboxParams(format="coco", min_width=SMALLEST_BOX_PX, min_height=SMALLEST_BOX_PX)
        self.move = A.Compose(_moves(settings), bbox_params=boxes)
        # Apart from the moves, because a cut-out would take masks and boxes with it.
        self.repaint = A.Compose(_repaints(settings))

    def takes(self, seed: int) -> bool:
        """Whether the sample with this seed is transformed: `share` of them are."""
        return self.share == 1 or bool(np.random.default_rng([seed, 1]).random() < self.share)

    def __call__(
        self, image: np.ndarray, seed: int, mask: np.ndarray | None = None, boxes: np.ndarray | None = None
    ) -> Augmented:
        """Transform an image, uint8 (y, x, channels); equal seeds give equal results, whatever comes with it.

        `mask` is (y, x) or (y, x, n); `boxes` (n, 4) are x, y, width, height in pixels. Boxes are clipped to the image,
        and those outside it dropped.
        """
        boxes = None if boxes is None else _inside(boxes, image)
        if not self.takes(seed):
            return Augmented(image, mask, boxes)
        given = {} if mask is None else {"mask": mask}
        # One stream for all: albumentations' own set_random_seed gives each transform the same numbers, so that, for
        # one, both flips would always come together.
        streams = np.random.default_rng(seed), random.Random(seed)
        self.move.set_random_state(*streams)
        self.repaint.set_random_state(*streams)
        moved = self.move(image=image, bboxes=np.zeros((0, 4)) if boxes is None else boxes, **given)
        painted = self.repaint(image=moved["image"])["image"]
        return Augmented(painted, moved.get("mask"), None if boxes is None else np.reshape(moved["bboxes"], (-1, 4)))


def _moves(settings: Augment) -> list[A.BasicTransform]:
    """The transforms that masks and boxes follow."""
    transforms: list[A.BasicTransform] = []
    if settings.horizontal_flip:
        transforms.append(A.HorizontalFlip(p=settings.horizontal_flip))
    if settings.vertical_flip:
        transforms.append(A.VerticalFlip(p=settings.vertical_flip))
    if settings.rotate_deg or settings.shift_x or settings.shift_y or settings.scale:
        transforms.append(
            A.Affine(
                rotate=_around(settings.rotate_deg),
                translate_percent={"x": _around(settings.shift_x), "y": _around(settings.shift_y)},
                scale=(1 - settings.scale, 1 + settings.scale),
                border_mode=cv2.BORDER_CONSTANT,
                p=1.0,
            )
        )
    if settings.distortion:
        limits = _around(settings.distortion)
        transforms.append(A.GridDistortion(num_steps=5, distort_limit=limits, border_mode=cv2.BORDER_CONSTANT, p=1.0))
    # albumentations warns of boxes that nothing moves.
    return transforms or [A.NoOp()]


def _repaints(settings: Augment) -> list[A.BasicTransform]:
    """The transforms of grey values alone."""
    transforms: list[A.BasicTransform] = []
    if settings.brightness or settings.contrast:
        transforms.append(
            A.RandomBrightnessContrast(brightness_limit=settings.brightness, contrast_limit=settings.contrast, p=1.0)
        )
    if settings.blur_px:
        transforms.append(A.GaussianBlur(blur_limit=0, sigma_limit=(0, settings.blur_px), p=1.0))
    if settings.noise:
        # Independent between channels, as between slices, at one strength.
        transforms.append(A.GaussNoise(std_range=(0, settings.noise), p=1.0))
    if settings.cut_out:
        side = (0, settings.cut_out)
        transforms.append(
            A.CoarseDropout(num_holes_range=(1, 1), hole_height_range=side, hole_width_range=side, fill=0, p=1.0)
        )
    return transforms


def _inside(boxes: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The boxes clipped to the image, without those of which less than a pixel is left."""
    size = np.array(image.shape[1::-1])
    first, last = np.clip(boxes[:, :2], 0, size), np.clip(boxes[:, :2] + boxes[:, 2:], 0, size)
    kept = (last - first >= SMALLEST_BOX_PX).all(axis=1)
    return np.hstack([first, last - first])[kept]


def _around(strength: float) -> tuple[float, float]:
    return -strength, strength
