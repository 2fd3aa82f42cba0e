"""Random transforms of training images: the only file that knows albumentations."""

import os

import cv2
import numpy as np

# At its import albumentations otherwise asks the network for a newer version.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
import albumentations as A

from cspine.config import Augment


class Augmenter:
    """Applies the transforms that are switched on; the same draw for all channels of an image."""

    def __init__(self, settings: Augment) -> None:
        self.compose = A.Compose(_transforms(settings))

    def __call__(self, image: np.ndarray, seed: int) -> np.ndarray:
        """Transform an image, uint8 (y, x, channels); equal seeds give equal results."""
        if not self.compose.transforms:
            return image
        self.compose.set_random_seed(seed)
        return self.compose(image=image)["image"]


def _transforms(settings: Augment) -> list[A.BasicTransform]:
    transforms: list[A.BasicTransform] = []
    if settings.horizontal_flip:
        transforms.append(A.HorizontalFlip(p=settings.horizontal_flip))
    if settings.vertical_flip:
        transforms.append(A.VerticalFlip(p=settings.vertical_flip))
    if settings.rotate_deg or settings.shift or settings.scale:
        transforms.append(
            A.Affine(
                rotate=(-settings.rotate_deg, settings.rotate_deg),
                translate_percent=(-settings.shift, settings.shift),
                scale=(1 - settings.scale, 1 + settings.scale),
                border_mode=cv2.BORDER_CONSTANT,
                p=1.0,
            )
        )
    if settings.brightness or settings.contrast:
        transforms.append(
            A.RandomBrightnessContrast(brightness_limit=settings.brightness, contrast_limit=settings.contrast, p=1.0)
        )
    if settings.blur:
        transforms.append(A.GaussianBlur(blur_limit=(3, 5), p=settings.blur))
    if settings.noise:
        transforms.append(A.GaussNoise(std_range=(0.01, 0.05), p=settings.noise))
    return transforms
