"""Slices of a study as images: neighbours a fixed distance away become channels, so slice spacing does not matter."""

import cv2
import numpy as np

from cspine.config import Data, DatasetConfig

MINIMUM_PRESENCE = 0.05


def channels(config: DatasetConfig) -> int:
    """How many channels an image has: every window of the slice and of its neighbours on either side."""
    return len(config.preprocess.windows) * slices_per_image(config.data)


def slices_per_image(settings: Data) -> int:
    return 2 * settings.neighbours + 1


def neighbour_indices(z_mm: np.ndarray, indices: np.ndarray, settings: Data) -> np.ndarray:
    """For each slice the indices (n, slices_per_image) of the slices nearest to z + k * step, caudal neighbours last.

    `z_mm` (all slices) falls strictly, cranial to caudal; beyond the ends the last slice repeats.
    """
    return nearest_slices(z_mm, z_mm[indices][:, None] + neighbour_offsets_mm(settings))


def neighbour_offsets_mm(settings: Data) -> np.ndarray:
    """(slices_per_image,) along z, cranial first, of what becomes the channels of an image."""
    return np.arange(settings.neighbours, -settings.neighbours - 1, -1) * settings.neighbour_step_mm


def nearest_slices(z_mm: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The indices of the slices, at `z_mm` (z,) that falls strictly, nearest to places of any shape."""
    rising = z_mm[::-1]
    right = np.clip(np.searchsorted(rising, wanted), 1, len(z_mm) - 1) if len(z_mm) > 1 else np.zeros(wanted.shape, int)
    left = np.maximum(right - 1, 0)
    nearest = np.where(wanted - rising[left] <= rising[right] - wanted, left, right)
    return len(z_mm) - 1 - nearest


def slice_image(volume: np.ndarray, neighbours: np.ndarray, settings: Data) -> np.ndarray:
    """One image, uint8 (size, size, channels), from the middle of a cached volume, uint8 (z, windows, y, x).

    The windows of a slice stay together: all of the most cranial slice, then all of the next.
    """
    size_px, side = settings.image_size_px, volume.shape[-1]
    margin = margin_px(side, settings)
    middle = slice(margin, side - margin)
    size_in = side - 2 * margin
    mode = cv2.INTER_AREA if size_in > size_px else cv2.INTER_LINEAR
    slices = [pixels for index in neighbours for pixels in volume[index, :, middle, middle]]
    if size_in != size_px:
        # One by one, because OpenCV resizes at most four channels at once.
        slices = [cv2.resize(pixels, (size_px, size_px), interpolation=mode) for pixels in slices]
    return np.stack(slices, axis=-1)


def margin_px(side: int, settings: Data) -> int:
    """How many pixels of a cached square of so many a side are left out on each side."""
    return round(side * (1 - settings.centre_share) / 2)


def slice_batch(volume: np.ndarray, z_mm: np.ndarray, indices: np.ndarray, settings: Data) -> np.ndarray:
    """Images of several slices of one study, uint8 (n, channels, size, size)."""
    rows = neighbour_indices(z_mm, indices, settings)
    images = [slice_image(volume, row, settings) for row in rows]
    return np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))


def visible_slices(presence: np.ndarray) -> np.ndarray:
    """The slices (n,) on which stage 1, presence (n, 7), sees a level at all.

    The others weigh next to nothing in sum_i f_i v_ij, so fracture models neither train on them nor predict them.
    """
    return presence.max(axis=1, initial=0) > MINIMUM_PRESENCE
