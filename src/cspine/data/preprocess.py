"""HU to what the models see, in training and inference alike: a window, and a square of fixed mm around the body."""

from dataclasses import dataclass

import cv2
import numpy as np
from scipy import ndimage

from cspine.config import Preprocess
from cspine.data.geometry import Geometry

BODY_HU = -300


@dataclass(frozen=True)
class Crop:
    """The rectangle of original pixels (it may reach beyond the slice) that became `size_px` x `size_px` pixels."""

    top: int
    left: int
    height: int
    width: int
    size_px: int

    def to_original(self, y, x):
        """Original (y, x) of cached pixel coordinates; whole numbers are pixel centres."""
        return (
            self.top + (y + 0.5) * self.height / self.size_px - 0.5,
            self.left + (x + 0.5) * self.width / self.size_px - 0.5,
        )

    def to_cached(self, y, x):
        """Cached (y, x) of original pixel coordinates, the inverse of `to_original`."""
        return (
            (y - self.top + 0.5) * self.size_px / self.height - 0.5,
            (x - self.left + 0.5) * self.size_px / self.width - 0.5,
        )


def body_centre(volume: np.ndarray) -> tuple[float, float]:
    """The (y, x) pixel at the middle of the body in int16 HU (z, y, x): the median over slices of the centroids.

    The table is thin, so an erosion parts it from the body, and the largest component remains. A volume without a body
    is centred on the slice.
    """
    depth, rows, columns = volume.shape
    step_z, step = max(1, depth // 48), max(1, min(rows, columns) // 128)
    body = volume[::step_z, ::step, ::step] > BODY_HU
    core = ndimage.binary_erosion(body, np.ones((1, 3, 3), bool), iterations=2)
    labels, count = ndimage.label(core)
    if not count:
        return (rows - 1) / 2, (columns - 1) / 2
    largest = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
    present = np.flatnonzero(largest.any(axis=(1, 2)))
    centroids = [ndimage.center_of_mass(largest[index]) for index in present]
    y, x = np.median(centroids, axis=0) * step
    return float(y), float(x)


def plan_crop(volume: np.ndarray, geometry: Geometry, config: Preprocess) -> Crop:
    """The square to cut: `field_mm` around the body, or the whole slice padded to a square where it is null."""
    _, rows, columns = volume.shape
    spacing_y, spacing_x = geometry.pixel_spacing_mm
    if config.field_mm is None:
        field_mm, centre = max(rows * spacing_y, columns * spacing_x), ((rows - 1) / 2, (columns - 1) / 2)
    else:
        field_mm, centre = config.field_mm, body_centre(volume)
    height, width = max(1, round(field_mm / spacing_y)), max(1, round(field_mm / spacing_x))
    top, left = round(centre[0] - (height - 1) / 2), round(centre[1] - (width - 1) / 2)
    return Crop(top, left, height, width, config.size_px)


def preprocess(volume_hu: np.ndarray, geometry: Geometry, config: Preprocess) -> np.ndarray:
    """int16 HU (z, y, x) to uint8 (z, size, size): the window spread over 0 to 255, air outside the slice."""
    return cut(volume_hu, plan_crop(volume_hu, geometry, config), config)


def cut(volume_hu: np.ndarray, crop: Crop, config: Preprocess) -> np.ndarray:
    """`preprocess` for a crop already planned; slice by slice, so that no second volume is in memory."""
    size = config.size_px
    result = np.empty((len(volume_hu), size, size), np.uint8)
    for index, pixels in enumerate(volume_hu):
        result[index] = _cut_slice(pixels, crop, config)
    return result


def _cut_slice(pixels: np.ndarray, crop: Crop, config: Preprocess) -> np.ndarray:
    low, high = config.window_low_hu, config.window_high_hu
    rows, columns = pixels.shape
    y0, y1 = np.clip((crop.top, crop.top + crop.height), 0, rows)
    x0, x1 = np.clip((crop.left, crop.left + crop.width), 0, columns)
    # Clipped before it is resampled, so that metal does not bleed into its neighbours.
    field = np.full((crop.height, crop.width), round(low), np.int16)
    field[y0 - crop.top : y1 - crop.top, x0 - crop.left : x1 - crop.left] = np.clip(
        pixels[y0:y1, x0:x1], round(low), round(high)
    )
    shrink = crop.height > crop.size_px
    mode = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
    resized = cv2.resize(field, (crop.size_px, crop.size_px), interpolation=mode).astype(np.float32)
    return np.rint((resized - low) * np.float32(255 / (high - low))).clip(0, 255).astype(np.uint8)
