"""The reconstruction kernel of a CT: its point spread in the slice, and how it passes each spatial frequency."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

WIDER = 2.2


@dataclass(frozen=True)
class Kernel:
    """A Gaussian of deviation `blur_mm`, which a bone kernel undercuts by the share `sharpen` of a wider one.

    The undercut makes edges overshoot. Weights sum to 1, so HU of what is large stay as they are.
    """

    blur_mm: float
    sharpen: float

    def apply(self, image: np.ndarray, pixel_mm: float) -> np.ndarray:
        """A float32 image (y, x) as this kernel shows it."""
        sigma = self.blur_mm / pixel_mm
        near = cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
        if not self.sharpen:
            return near
        wide = cv2.GaussianBlur(image, (0, 0), WIDER * sigma, borderType=cv2.BORDER_REPLICATE)
        return cv2.addWeighted(near, 1 + self.sharpen, wide, -self.sharpen, 0)

    def transfer(self, frequency: np.ndarray) -> np.ndarray:
        """The share of the contrast that is left at frequencies in cycles/mm: the modulation transfer function."""
        near = -2 * (math.pi * self.blur_mm * frequency) ** 2
        return (1 + self.sharpen) * np.exp(near) - self.sharpen * np.exp(near * WIDER**2)
