"""HU to what the models see, in training and inference alike.

In this order, each slice on its own: region means, background to the lowest value, windows, a square of fixed mm
around the body, resize.
"""

from dataclasses import dataclass

import numpy as np

from cspine.config import Preprocess
from cspine.data.body import body_centre, body_mask
from cspine.data.denoise import region_means
from cspine.data.geometry import Geometry
from cspine.data.kmeans import study_splits
from cspine.data.resample import resample
from cspine.windows import window_hu

# Slices that a study is planned by, up to twice as many.
SAMPLE = 48


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


@dataclass(frozen=True, eq=False)
class Plan:
    """What the whole study decides before its slices are made one by one."""

    crop: Crop
    pixel_spacing_mm: tuple[float, float]  # y, x
    splits_hu: np.ndarray  # between the classes of grey, rising; empty where no step asks for them
    mask_threshold_hu: float  # the body is above; unused where config.mask is none


def sample_indices(depth: int) -> range:
    """The slices, evenly spaced and 95 at most, that tell enough of a study of so many to plan it."""
    return range(0, depth, max(1, depth // SAMPLE))


def plan_study(volume: np.ndarray, geometry: Geometry, config: Preprocess) -> Plan:
    """Find the body and the classes of grey in a sample of int16 HU (z, y, x); a sample's own sample is itself."""
    volume = volume[:: sample_indices(len(volume)).step]
    splits_hu = np.zeros(0)
    if config.mask == "kmeans" or config.denoise == "region_mean":
        splits_hu = study_splits(volume, config.kmeans_classes)
    threshold_hu = kmeans_threshold_hu(splits_hu) if config.mask == "kmeans" else config.mask_threshold_hu
    return Plan(plan_crop(volume, geometry, config), geometry.pixel_spacing_mm, splits_hu, threshold_hu)


def kmeans_threshold_hu(splits_hu: np.ndarray) -> float:
    """The HU that the body is above: all classes but the lowest. A volume of one value has no background."""
    # A split is the lowest value of the class above it.
    return float(splits_hu[0]) - 1 if len(splits_hu) else -np.inf


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
    """int16 HU (z, y, x) to uint8 (z, windows, size, size): each window spread over 0 to 255, 0 outside the slice."""
    return cut(volume_hu, plan_study(volume_hu, geometry, config), config)


def cut(volume_hu: np.ndarray, plan: Plan, config: Preprocess) -> np.ndarray:
    """`preprocess` for a study already planned."""
    size = config.size_px
    result = np.empty((len(volume_hu), len(config.windows), size, size), np.uint8)
    for pixels, out in zip(volume_hu, result, strict=True):
        cut_slice(pixels, plan, config, out)
    return result


def cut_slice(pixels: np.ndarray, plan: Plan, config: Preprocess, out: np.ndarray) -> None:
    """`cut` for one slice, int16 HU (y, x), into uint8 (windows, size, size)."""
    cleaned, crop = clean_slice(pixels, plan, config), plan.crop
    for window, grey in zip(config.windows, out, strict=True):
        resample(cleaned, (crop.top, crop.left), (crop.height, crop.width), window_hu(window), grey)


def clean_slice(pixels: np.ndarray, plan: Plan, config: Preprocess) -> np.ndarray:
    """One slice, int16 HU (y, x), after the steps that are switched on: region means, then background to the lowest."""
    cleaned = region_means(pixels, plan.splits_hu) if config.denoise == "region_mean" else pixels
    if config.mask in ("none", "learned"):
        # A learned mask needs to know the levels of the whole study, and is applied to its pixels (background.py).
        return cleaned
    lowest = min(round(window_hu(window)[0]) for window in config.windows)
    return np.where(body_mask(pixels, plan.mask_threshold_hu, plan.pixel_spacing_mm), cleaned, np.int16(lowest))
