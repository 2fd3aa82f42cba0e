"""A study on cubic voxels, the same size in every patient: what 3-D models see, and the way back to slices and mm.

The grid lies over the cached square and the whole stack. Its planes run cranial to caudal, evenly spaced, whatever the
spacing of the slices.
"""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from cspine.config import Config
from cspine.data.geometry import Geometry
from cspine.data.preprocess import Crop
from cspine.errors import UserError


@dataclass(frozen=True, eq=False)
class Grid:
    """Voxels (z, y, x) over a study. In z they are `voxel_mm` apart; in y and x `side` of them share the field."""

    z_mm: np.ndarray  # (slices,) of the study, falling
    voxel_mm: float
    side: int

    @cached_property
    def plane_z_mm(self) -> np.ndarray:
        """(planes,) their places, falling: enough to reach both end slices, around the middle of the stack."""
        extent_mm = float(self.z_mm[0] - self.z_mm[-1])
        planes = max(1, int(np.ceil(extent_mm / self.voxel_mm)) + 1)
        middle_mm = (self.z_mm[0] + self.z_mm[-1]) / 2
        return middle_mm + ((planes - 1) / 2 - np.arange(planes)) * self.voxel_mm

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.plane_z_mm), self.side, self.side

    def sample_pixels(self, volume: np.ndarray) -> np.ndarray:
        """uint8 (windows, planes, side, side) from cached pixels (z, windows, y, x): means over each voxel."""
        depth, windows = volume.shape[:2]
        size = (self.side, self.side)
        mode = cv2.INTER_AREA if volume.shape[-1] > self.side else cv2.INTER_LINEAR
        small = np.empty((windows, depth, *size), np.float32)
        for z in range(depth):
            for window in range(windows):
                small[window, z] = cv2.resize(volume[z, window], size, interpolation=mode)
        averaged = self._plane_weights @ small.reshape(windows, depth, -1)
        return np.rint(averaged).astype(np.uint8).reshape(windows, *self.shape)

    def sample_labels(self, labels: np.ndarray) -> np.ndarray:
        """uint8 (planes, side, side) from labels on the cached voxels (z, y, x), nearest neighbour."""
        size = labels.shape[-1]
        pixels = ((np.arange(self.side) + 0.5) * size / self.side).astype(int)
        return labels[self._nearest_slice[:, None, None], pixels[:, None], pixels]

    def to_slices(self, values: np.ndarray) -> np.ndarray:
        """(slices, n) on the study's slices from (planes, n), linear in z."""
        rising = self.plane_z_mm[::-1]
        return np.stack([np.interp(self.z_mm, rising, column[::-1]) for column in values.T], axis=1)

    def labels_on_study(self, labels: np.ndarray, crop: Crop, shape: tuple[int, int, int]) -> np.ndarray:
        """uint8 on the study's own voxels, `shape` (z, y, x), nearest neighbour; 0 beyond the grid."""
        rows, columns = (self._from_original(np.arange(size), crop, axis) for axis, size in enumerate(shape[1:]))
        planes = np.rint((self.plane_z_mm[0] - self.z_mm) / self.voxel_mm).astype(int).clip(0, len(labels) - 1)
        inside = (rows >= 0)[:, None] & (columns >= 0)
        taken = labels[planes[:, None, None], rows.clip(0)[:, None], columns.clip(0)]
        return taken * inside

    def to_lps(self, voxels: np.ndarray, crop: Crop, geometry: Geometry) -> np.ndarray:
        """LPS mm (..., 3) of grid indices (..., 3) in z, y, x; whole numbers are voxel centres."""
        z_mm = self.plane_z_mm[0] - voxels[..., 0] * self.voxel_mm
        slices, ratio = slice_index(z_mm, self.z_mm), crop.size_px / self.side
        y, x = crop.to_original((voxels[..., 1] + 0.5) * ratio - 0.5, (voxels[..., 2] + 0.5) * ratio - 0.5)
        # The end planes may lie half a voxel beyond the end slices.
        beyond_mm = z_mm - np.interp(slices, np.arange(len(self.z_mm)), self.z_mm)
        return geometry.voxel_to_lps(slices, y, x) + beyond_mm[..., None] * geometry.normal

    def _from_original(self, pixels: np.ndarray, crop: Crop, axis: int) -> np.ndarray:
        """Nearest grid index of original pixel coordinates along y (0) or x (1); -1 outside."""
        cached = crop.to_cached(pixels, pixels)[axis]
        index = np.floor((cached + 0.5) * self.side / crop.size_px).astype(int)
        return np.where((index >= 0) & (index < self.side), index, -1)

    @cached_property
    def _nearest_slice(self) -> np.ndarray:
        return np.abs(self.plane_z_mm[:, None] - self.z_mm).argmin(axis=1)

    @cached_property
    def _plane_weights(self) -> np.ndarray:
        """float32 (planes, slices): the mean, over a voxel's height, of linear interpolation between slices."""
        spacing_mm = float(np.median(-np.diff(self.z_mm))) if len(self.z_mm) > 1 else self.voxel_mm
        count = max(1, int(np.ceil(2 * self.voxel_mm / spacing_mm)))
        offsets_mm = ((np.arange(count) + 0.5) / count - 0.5) * self.voxel_mm
        slices = slice_index(self.plane_z_mm[:, None] + offsets_mm, self.z_mm)
        # The hat function around each slice is linear interpolation.
        hats = np.maximum(0, 1 - np.abs(slices[..., None] - np.arange(len(self.z_mm))))
        return hats.mean(axis=1).astype(np.float32)


def slice_index(z_mm: np.ndarray, slices_mm: np.ndarray) -> np.ndarray:
    """Fractional slice index of places along the normal; beyond the ends that of the end."""
    return np.interp(-z_mm, -slices_mm, np.arange(len(slices_mm)))


def study_grid(z_mm: np.ndarray, config: Config) -> Grid:
    """The grid of a study under a config. Raises UserError where the field of view is not fixed in mm."""
    if config.preprocess.field_mm is None:
        raise UserError(f"{config.name}: a 3-D model needs a field of fixed size; set preprocess.field_mm")
    side = max(1, round(config.preprocess.field_mm / config.volume.voxel_mm))
    return Grid(z_mm, config.volume.voxel_mm, side)
