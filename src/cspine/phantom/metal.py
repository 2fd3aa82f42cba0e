"""Streaks of dental metal: the error that metal makes in the projections, reconstructed by filtered back-projection.

Behind metal the beam is hard and few photons arrive: the measured projection is too small by about the square of the
metal's own, and noisy. De Man et al., Metal streak artifacts in X-ray computed tomography: a simulation study, IEEE
Trans Nucl Sci 46(3), 1999. Only this error is projected and reconstructed, on a coarse grid.
"""

import math

import cv2
import numpy as np
from numba import njit

METAL_HU = 2700
SIDE, ANGLES = 224, 288
METAL_PER_MM, WATER_PER_MM = 0.30, 0.02
HARDENING, STARVATION = 0.03, 0.014
LARGEST_HU = 1500.0


def metal_streaks(image: np.ndarray, pixel_mm: float, rng: np.random.Generator) -> np.ndarray | None:
    """The error in HU (y, x) that metal adds to a slice; None where there is none."""
    metal = (image > METAL_HU).astype(np.float32)
    if metal.sum() * pixel_mm**2 < 2.0:
        return None
    side_mm = max(image.shape) * pixel_mm
    step = side_mm / SIDE
    coarse = np.zeros((SIDE, SIDE), np.float32)
    small = cv2.resize(metal, None, fx=pixel_mm / step, fy=pixel_mm / step, interpolation=cv2.INTER_AREA)
    coarse[: small.shape[0], : small.shape[1]] = small[:SIDE, :SIDE]
    angles = np.arange(ANGLES) * math.pi / ANGLES
    paths = _project(coarse, np.cos(angles), np.sin(angles)) * (step * METAL_PER_MM)
    error = -HARDENING * paths**2
    error += STARVATION * np.sqrt(np.expm1(np.minimum(paths, 6.0))) * rng.standard_normal(paths.shape)
    streaks = _back_project(_ramped(error, step), np.cos(angles), np.sin(angles))
    streaks *= 1000 / WATER_PER_MM * math.pi / ANGLES
    scale = step / pixel_mm
    full = cv2.resize(
        np.clip(streaks, -LARGEST_HU, LARGEST_HU), None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC
    )
    fitted = np.zeros(image.shape, np.float32)
    rows, columns = min(full.shape[0], image.shape[0]), min(full.shape[1], image.shape[1])
    fitted[:rows, :columns] = full[:rows, :columns]
    return fitted


def _ramped(sinogram: np.ndarray, step_mm: float) -> np.ndarray:
    """Each projection (angles, detectors) through the ramp filter with a Hann window, per mm."""
    count = 2 * sinogram.shape[1]
    frequency = np.fft.rfftfreq(count, step_mm)
    window = frequency * (0.5 + 0.5 * np.cos(np.pi * frequency / frequency[-1]))
    return np.fft.irfft(np.fft.rfft(sinogram, count, axis=1) * window, count, axis=1)[:, : sinogram.shape[1]]


@njit(cache=True)
def _project(image, cosines, sines):
    """Parallel projections (angles, detectors) in pixels of what is not zero; detectors reach over the diagonal."""
    side = image.shape[0]
    detectors = int(1.5 * side)
    found = np.zeros((len(cosines), detectors))
    for j in range(side):
        for i in range(side):
            if image[j, i] <= 0.0:
                continue
            x, y = i - 0.5 * (side - 1), j - 0.5 * (side - 1)
            for a in range(len(cosines)):
                place = x * cosines[a] + y * sines[a] + 0.5 * (detectors - 1)
                low = int(place)
                part = place - low
                found[a, low] += image[j, i] * (1.0 - part)
                found[a, low + 1] += image[j, i] * part
    return found


@njit(cache=True, fastmath=True)
def _back_project(filtered, cosines, sines):
    """The sum over all angles of the filtered projections, float32 (SIDE, SIDE)."""
    detectors = filtered.shape[1]
    found = np.zeros((SIDE, SIDE), np.float32)
    for a in range(len(cosines)):
        for j in range(SIDE):
            place = -0.5 * (SIDE - 1) * cosines[a] + (j - 0.5 * (SIDE - 1)) * sines[a] + 0.5 * (detectors - 1)
            for i in range(SIDE):
                low = int(place)
                part = place - low
                found[j, i] += filtered[a, low] * (1.0 - part) + filtered[a, low + 1] * part
                place += cosines[a]
    return found
