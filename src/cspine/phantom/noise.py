"""Noise as filtered back-projection leaves it, and the streaks of starved rays.

Photons are counted without correlation, so the power of CT noise is the reconstruction's ramp times the square of the
kernel's transfer function: little at low frequencies, a peak, a roll-off (Kijewski and Judy, The noise power spectrum
of CT images, Phys Med Biol 32(5), 1987). Where rays along the rows starve, the noise is theirs, and varies across rows.
"""

import math
from collections import deque

import numpy as np
from scipy import fft

from cspine.phantom.kernel import Kernel

TILE = 1.5  # side of the periodic tile that noise is cut from, over the side of a slice
LOUDEST = 1.6
STREAKS_FROM = 1.1
STREAK_SPREAD = math.radians(7)


class NoiseSource:
    """Slices of noise from cranial to caudal; those that overlap share part of theirs, by the slice profile."""

    def __init__(
        self, kernel: Kernel, pixel_mm: float, profile: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator
    ) -> None:
        """`profile` is the weights of the painted slices in a scanned one; `shape` rows and columns."""
        even, streaked = noise_tiles(kernel, pixel_mm, max(shape), rng)
        self.profile = (profile / np.sqrt((profile**2).sum())).astype(np.float32)
        self.layers = [_Layers(tile, shape, len(profile), rng) for tile in (even, streaked)]

    def slice(self, noise_hu: float, loud: np.ndarray) -> np.ndarray:
        """Noise of deviation `noise_hu` times `loud` (y, x), float32; the loudest rows are streaked."""
        even, streaked = self.layers
        even.advance()
        streaked.advance()
        noise = even.mixed(self.profile) * (noise_hu * np.minimum(loud, LOUDEST))
        if loud.max() > STREAKS_FROM:
            noise += streaked.mixed(self.profile) * (noise_hu * np.clip(loud - STREAKS_FROM, 0, 2.5))
        return noise


class _Layers:
    """Layers as thick as the painted slices, each cut from the tile at a random place and turned at random."""

    def __init__(self, tile: np.ndarray, shape: tuple[int, ...], count: int, rng: np.random.Generator) -> None:
        self.rng, self.shape, self.side = rng, shape, len(tile)
        self.tile = np.pad(tile, ((0, shape[0]), (0, shape[1])), mode="wrap")
        self.layers = deque((self._cut() for _ in range(count)), maxlen=count)

    def advance(self) -> None:
        self.layers.append(self._cut())

    def mixed(self, weights: np.ndarray) -> np.ndarray:
        found = np.zeros(self.shape, np.float32)
        for layer, weight in zip(self.layers, weights, strict=True):
            if weight:
                found += weight * layer
        return found

    def _cut(self) -> np.ndarray:
        y, x, flip_y, flip_x = self.rng.integers((self.side, self.side, 2, 2))
        rows, columns = self.shape
        return self.tile[y : y + rows, x : x + columns][:: 1 - 2 * flip_y, :: 1 - 2 * flip_x]


def noise_tiles(kernel: Kernel, pixel_mm: float, side: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Periodic noise of deviation 1, float32: the same in all directions, and that of rays along the rows."""
    side = fft.next_fast_len(math.ceil(TILE * side), real=True)
    fy, fx = fft.fftfreq(side, pixel_mm)[:, None], fft.rfftfreq(side, pixel_mm)
    frequency = np.hypot(fy, fx)
    even = np.sqrt(frequency) * kernel.transfer(frequency)
    # The noise of one direction's rays lies on the line of frequencies across them.
    streaked = even * np.exp(-0.25 * (np.arctan2(fx, np.abs(fy)) / STREAK_SPREAD) ** 2)
    return _shaped(even, side, rng), _shaped(streaked, side, rng)


def _shaped(amplitude: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    white = fft.rfft2(rng.standard_normal((side, side), np.float32))
    noise = fft.irfft2(white * amplitude.astype(np.float32), (side, side))
    return noise / noise.std()
