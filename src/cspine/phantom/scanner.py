"""The CT scanner: slice profile, sharpness, noise, hardening of the beam, metal, and patients who move.

HU that the phantom's tissues are matched to, the ranges of textbooks (Buzug, Computed Tomography, 2008); trabecular
bone of the neck is denser than that of the back (Yoganandan et al., Bone 39, 2006):

    air -1000; lung -900..-700; fat -120..-80; cerebrospinal fluid 0..20; cord 30..45; muscle 40..70; thyroid 80..130;
    blood 35..55, with contrast medium 150..350; trabecular bone of C2 to C7 200..500; cortical bone 700..1500;
    dentine 1200..1800; enamel 2000..3000; metal beyond the range of the scanner.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from cspine.phantom.canvas import Grid
from cspine.phantom.kernel import Kernel
from cspine.phantom.metal import metal_streaks
from cspine.phantom.noise import NoiseSource

LOWEST_HU, HIGHEST_HU = -1024, 3071
MOTION_SHARE = 0.05
BONE_KERNEL_SHARE = 0.65
BODY_HU, BONE_HU = -500, 300
COARSE = 4  # shading varies slowly and is computed on every fourth pixel


@dataclass(frozen=True)
class Scanner:
    """One scan's image quality; noise in HU at the neck.

    `motion` is the first slice and how many, as shares of the stack, and the shift (x, y) in mm of a patient who moved.
    """

    kernel: Kernel
    noise_hu: float
    motion: tuple[float, float, float, float] | None


def draw_scanner(rng: np.random.Generator) -> Scanner:
    """Bone kernels are sharp and noisy, the others soft and quiet."""
    bone = rng.random() < BONE_KERNEL_SHARE
    sharp, overshoot, noise = rng.random(3).tolist()
    moved, start, length = rng.random() < MOTION_SHARE, rng.random(), rng.uniform(0.04, 0.15)
    shift = rng.uniform(0.4, 1.0) * np.array([rng.choice([-1, 1]), rng.choice([-1, 1])]) / math.sqrt(2)
    return Scanner(
        kernel=Kernel(0.28 + 0.14 * sharp, 0.25 + 0.35 * overshoot) if bone else Kernel(0.44 + 0.18 * sharp, 0.0),
        noise_hu=20 + 20 * noise if bone else 11 + 12 * noise,
        motion=(start, length, *shift) if moved else None,
    )


def scan(hu: np.ndarray, grid: Grid, thickness_mm: float, scanner: Scanner, rng: np.random.Generator) -> np.ndarray:
    """The scanned volume, int16 HU (z, y, x), of a painted one."""
    found = np.empty(hu.shape, np.int16)
    profile = profile_weights(grid.spacing_mm, thickness_mm)
    noise = NoiseSource(scanner.kernel, grid.pixel_mm, profile, hu.shape[1:], rng)
    moving = _moving(scanner, len(hu))
    for k, image in enumerate(_profiled(hu, profile)):
        shading, loud = _attenuation(image, grid.pixel_mm)
        streaks = metal_streaks(image, grid.pixel_mm, rng)
        if k in moving and scanner.motion is not None:
            image = _doubled(image, scanner.motion[2:], grid.pixel_mm)
        image = scanner.kernel.apply(image, grid.pixel_mm)
        image += shading
        if streaks is not None:
            image += streaks
        image += noise.slice(scanner.noise_hu, loud)
        found[k] = np.clip(np.rint(image), LOWEST_HU, HIGHEST_HU)
    return found


def profile_weights(spacing_mm: float, thickness_mm: float) -> np.ndarray:
    """What each slice of the painted stack gives to a scanned one, the nearest in the middle; they sum to 1.

    A slice is a box of `thickness_mm`; the tails are those of a helical scan's interpolation.
    """
    reach = math.ceil(0.5 + 0.5 * thickness_mm / spacing_mm - 1e-9)
    places = spacing_mm * np.arange(-reach, reach + 1)
    low = np.maximum(places - spacing_mm / 2, -thickness_mm / 2)
    high = np.minimum(places + spacing_mm / 2, thickness_mm / 2)
    return np.convolve(np.maximum(high - low, 0) / thickness_mm, [0.05, 0.9, 0.05])


def _profiled(hu: np.ndarray, weights: np.ndarray) -> Iterator[np.ndarray]:
    """The slices of the profile, one after another, float32 (y, x); the stack's ends repeat."""
    reach = len(weights) // 2
    for k in range(len(hu)):
        image = np.zeros(hu.shape[1:], np.float32)
        for offset, weight in zip(range(-reach, reach + 1), weights, strict=True):
            if weight > 0:
                cv2.scaleAdd(hu[min(max(k + offset, 0), len(hu) - 1)], float(weight), image, image)
        yield image


def _attenuation(image: np.ndarray, pixel_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """What long ways through the body and through bone do: shading in HU (y, x), and how loud the noise is (y, x).

    Rays from the side lose most across the shoulders, so both follow the rows; noise is 1 for a neck 120 mm wide, and
    less near the skin and in the air.
    """
    coarse = cv2.resize(image, None, fx=1 / COARSE, fy=1 / COARSE, interpolation=cv2.INTER_AREA)
    step = COARSE * pixel_mm
    body = (coarse > BODY_HU).astype(np.float32)
    width = cv2.GaussianBlur(body.sum(1, keepdims=True) * step, (0, 0), 2.0 / step + 0.5)
    bone = cv2.GaussianBlur(
        (coarse > BONE_HU).sum(1, keepdims=True).astype(np.float32) * step, (0, 0), 2.0 / step + 0.5
    )
    # Whoever fills the field of view reaches beyond it.
    width += 1.2 * np.maximum(width - 0.8 * image.shape[1] * pixel_mm, 0)
    inside = cv2.GaussianBlur(body, (0, 0), 18.0 / step)
    dark = 0.16 * np.maximum(width - 190.0, 0) + 0.45 * np.maximum(bone - 45.0, 0)
    row_loud = np.exp(0.0065 * (np.maximum(width, 60.0) - 120.0))
    size = (image.shape[1], image.shape[0])
    loud = cv2.resize(row_loud * (0.55 + 0.45 * inside), size, interpolation=cv2.INTER_LINEAR)
    return cv2.resize(-np.minimum(dark, 90.0) * inside**2, size, interpolation=cv2.INTER_LINEAR), loud


def _moving(scanner: Scanner, slices: int) -> range:
    if scanner.motion is None:
        return range(0)
    start, length, _, _ = scanner.motion
    first = round(start * slices)
    return range(first, first + round(length * slices))


def _doubled(image: np.ndarray, shift_mm: tuple[float, ...], pixel_mm: float) -> np.ndarray:
    """Half of the rays saw the patient before the movement, half after it."""
    moved = np.array([[1, 0, shift_mm[0] / pixel_mm], [0, 1, shift_mm[1] / pixel_mm]])
    size = (image.shape[1], image.shape[0])
    return 0.5 * (image + cv2.warpAffine(image, moved, size, borderMode=cv2.BORDER_REPLICATE))
