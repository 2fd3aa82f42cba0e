"""The CT scanner: blur in the slice, slice profile, noise that grows with what the rays pass through."""

from dataclasses import dataclass

import cv2
import numpy as np

from cspine.phantom.canvas import Grid

LOWEST_HU, HIGHEST_HU = -1024, 3071


@dataclass(frozen=True)
class Scanner:
    """One scan's image quality; lengths in mm, noise in HU at the neck."""

    blur_mm: float
    thickness_mm: float
    noise_hu: float
    grain_mm: float


def draw_scanner(spacing_mm: float, rng: np.random.Generator) -> Scanner:
    return Scanner(
        blur_mm=rng.uniform(0.35, 0.62),
        thickness_mm=spacing_mm * float(rng.choice([1.0, 1.0, 1.25, 1.5])),
        noise_hu=rng.uniform(15, 36),
        grain_mm=rng.uniform(0.35, 0.7),
    )


def scan(hu: np.ndarray, grid: Grid, scanner: Scanner, rng: np.random.Generator) -> np.ndarray:
    """The scanned volume, int16 HU (z, y, x); `hu` is overwritten."""
    loudness = _loudness(hu, grid)
    overlap = max(scanner.thickness_mm / grid.spacing_mm - 1.0, 0.0)
    _slice_profile(hu, 0.06 + 0.5 * overlap / (1.0 + overlap) * 0.6)
    found = np.empty(hu.shape, np.int16)
    sigma, grain = scanner.blur_mm / grid.pixel_mm, scanner.grain_mm / grid.pixel_mm
    shape = hu.shape[1:]
    # A Gaussian blur scales the deviation of white noise by about this factor; the streaks are blurred along x.
    gain = np.sqrt(1 + 4 * np.pi * grain**2) * scanner.noise_hu
    streak_gain = np.sqrt(2 * np.sqrt(np.pi) * 14.0) * scanner.noise_hu
    for k in range(len(hu)):
        image = cv2.GaussianBlur(hu[k], (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
        noise = cv2.GaussianBlur(rng.standard_normal(shape, np.float32), (0, 0), grain)
        loud = loudness[k][:, None]
        image += gain * np.minimum(loud, 1.8) * noise
        if loud.max() > 1.25:
            streaks = cv2.GaussianBlur(rng.standard_normal(shape, np.float32), (0, 0), 14.0, sigmaY=0.5)
            image += streak_gain * 1.1 * np.clip(loud - 1.1, 0, 2.5) * streaks
        found[k] = np.clip(np.rint(image), LOWEST_HU, HIGHEST_HU)
    return found


def _loudness(hu: np.ndarray, grid: Grid) -> np.ndarray:
    """Noise of every row relative to a neck 120 mm wide, (z, y): rays across shoulders lose most."""
    body = (hu > -500).mean(2, dtype=np.float32) * hu.shape[2] * grid.pixel_mm
    width = cv2.GaussianBlur(body, (0, 0), 6.0, sigmaY=2.0)
    # Whoever fills the field of view reaches beyond it.
    width += 1.2 * np.maximum(width - 0.8 * hu.shape[2] * grid.pixel_mm, 0)
    return np.exp(0.0065 * (np.maximum(width, 60.0) - 120.0)).astype(np.float32)


def _slice_profile(hu: np.ndarray, side: float) -> None:
    """Mix every slice with its neighbours, `side` of each, in place."""
    before = hu[0].copy()
    for k in range(len(hu)):
        here = hu[k].copy()
        after = hu[min(k + 1, len(hu) - 1)]
        hu[k] = (1 - 2 * side) * here + side * (before + after)
        before = here
