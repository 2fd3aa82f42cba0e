"""Noise as filtered back-projection leaves it: little at low frequencies, a peak, a roll-off; streaks of starved rays.

The power spectrum of CT noise rises like the reconstruction's ramp and falls with its apodisation: Kijewski and Judy,
The noise power spectrum of CT images, Phys Med Biol 32(5), 1987.
"""

import math

import cv2
import numpy as np

WIDE, UNDERCUT = 2.6, 0.92  # the wider Gaussian that takes the low frequencies away
STREAK_PX, STREAK_ROWS_PX = 14.0, 0.5
LOUDEST = 1.9
STREAKS_FROM = 1.3


class NoiseSource:
    """Slices of noise, one after another; slices that overlap share part of theirs."""

    def __init__(self, grain_px: float, overlap: float, shape: tuple[int, ...], rng: np.random.Generator) -> None:
        """`grain_px` is the deviation of the inner Gaussian; `overlap` the thickness over the spacing of slices."""
        self.grain, self.shape, self.rng = grain_px, shape, rng
        self.shared = max(0.0, 1.0 - 1.0 / max(overlap, 1.0))
        self.gain = 1.0 / _deviation(self._shape, (65, 65))
        self.streak_gain = 1.0 / _deviation(_streaked, (17, 161))
        self.white = rng.standard_normal(shape, np.float32)

    def slice(self, noise_hu: float, loud: np.ndarray) -> np.ndarray:
        """Noise of deviation `noise_hu` times `loud` (y, x), float32; the loudest rows are streaked."""
        fresh = self.rng.standard_normal(self.shape, np.float32)
        self.white = self.shared * self.white + math.sqrt(1 - self.shared**2) * fresh
        noise = self._shape(self.white) * (self.gain * noise_hu * np.minimum(loud, LOUDEST))
        if loud.max() > STREAKS_FROM:
            more = np.clip(loud - STREAKS_FROM, 0, 2.5)
            noise += _streaked(self.rng.standard_normal(self.shape, np.float32)) * (self.streak_gain * noise_hu * more)
        return noise

    def _shape(self, white: np.ndarray) -> np.ndarray:
        inner = cv2.GaussianBlur(white, (0, 0), self.grain) if self.grain > 0.3 else white
        return inner - UNDERCUT * cv2.GaussianBlur(white, (0, 0), WIDE * max(self.grain, 0.4))


def _streaked(white: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(white, (0, 0), STREAK_PX, sigmaY=STREAK_ROWS_PX)


def _deviation(shape_of, size: tuple[int, int]) -> float:
    """The deviation that a filter leaves of white noise: the root of its squared impulse response's sum."""
    impulse = np.zeros(size, np.float32)
    impulse[size[0] // 2, size[1] // 2] = 1
    return float(np.sqrt((shape_of(impulse) ** 2).sum()))
