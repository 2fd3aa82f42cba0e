"""The report's own voxels: cubes along the patient's axes of the stack, about the spine, few enough to be sent.

The frame is the stack's: x and y along its rows and columns, z along its normal. Grid index 0 is the upper plane.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from cspine.data.geometry import Geometry
from cspine.data.grid import slice_index
from cspine.data.preprocess import Crop
from cspine.level_maps import LevelMap

# What a browser is sent: at one byte a voxel, less after compression.
MOST_VOXELS = 8_000_000
LEAST_MM = 0.5
AIR_HU = -1024
WHOLE = (0.0, 1.0, 0.0, 1.0)
# Around the middle of the levels; a vertebra is about 60 mm wide and 60 mm from arch to arch.
SPINE_MM = 120.0


@dataclass(frozen=True, eq=False)
class Frame:
    """Cubic voxels over a study, `shape` (z, y, x); `corner_px` is the (y, x) in the volume of the first."""

    geometry: Geometry
    shape: tuple[int, int, int]
    voxel_mm: float
    corner_px: tuple[float, float]

    @property
    def plane_z_mm(self) -> np.ndarray:
        """(planes,) along the stack's normal, falling; the first is the first slice."""
        return self.geometry.z_mm[0] - np.arange(self.shape[0]) * self.voxel_mm

    def pixels(self, axis: int) -> np.ndarray:
        """The volume's pixels, fractional, of the voxels along y (0) or x (1)."""
        step = self.voxel_mm / self.geometry.pixel_spacing_mm[axis]
        return self.corner_px[axis] + np.arange(self.shape[axis + 1]) * step

    @property
    def affine(self) -> np.ndarray:
        """4x4 from (x, y, z, 1) voxel indices to LPS mm; z runs down."""
        matrix = np.eye(4)
        matrix[:3, 0] = self.geometry.row_direction * self.voxel_mm
        matrix[:3, 1] = self.geometry.column_direction * self.voxel_mm
        matrix[:3, 2] = -self.geometry.normal * self.voxel_mm
        matrix[:3, 3] = self.geometry.voxel_to_lps(0, *self.corner_px)
        return matrix

    def to_index(self, lps_mm: np.ndarray) -> np.ndarray:
        """Voxel indices (..., 3) in z, y, x, fractional, of LPS mm (..., 3)."""
        inverse = np.linalg.inv(self.affine)
        return (np.asarray(lps_mm, float) @ inverse[:3, :3].T + inverse[:3, 3])[..., ::-1]

    def sample(self, volume: np.ndarray) -> np.ndarray:
        """int16 HU (z, y, x) of the study's own int16 HU: linear, after a mean over what a voxel covers."""
        blur = self.voxel_mm / np.array(self.geometry.pixel_spacing_mm)
        rows, columns = self.pixels(0), self.pixels(1)
        matrix = np.array([[blur[1], 0, columns[0]], [0, blur[0], rows[0]]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        size = self.shape[2], self.shape[1]
        air: Any = (float(AIR_HU), 0.0, 0.0, 0.0)
        small = np.empty((len(volume), *self.shape[1:]), np.float32)
        sigma = 0.4 * np.maximum(blur - 1, 0)
        for z, pixels in enumerate(volume):
            image = pixels.astype(np.float32)
            if (sigma > 0).any():
                image = cv2.GaussianBlur(image, (0, 0), max(sigma[1], 0.01), sigmaY=max(sigma[0], 0.01))
            small[z] = cv2.warpAffine(image, matrix, size, flags=flags, borderValue=air)
        return np.rint(_along_z(small, self.plane_z_mm, self.geometry.z_mm, self.voxel_mm)).astype(np.int16)

    def sample_map(self, found: LevelMap, crop: Crop) -> tuple[np.ndarray, np.ndarray]:
        """The likeliest level of a map on these voxels, uint8 (z, y, x) with 1 to 7, and its probability, float32.

        Linear between the map's voxels; both 0 beyond the map.
        """
        level, best = np.zeros(self.shape, np.uint8), np.zeros(self.shape, np.float32)
        for number, probabilities in enumerate(found.probabilities, start=1):
            # A level takes a tenth of the stack: only the planes about it are looked at.
            seen = np.flatnonzero(probabilities.any(axis=(1, 2)))
            if not len(seen):
                continue
            part = slice(max(0, seen[0] - 1), seen[-1] + 2)
            step_mm = float(np.median(-np.diff(found.plane_z_mm))) if len(found.plane_z_mm) > 1 else None
            made, there = self._sample_planes(probabilities[part], found.plane_z_mm[part], crop, WHOLE, step_mm)
            likelier = made / 255 > best[there]
            best[there] = np.where(likelier, made / 255, best[there])
            level[there] = np.where(likelier, number, level[there])
        return level, best

    def sample_square(
        self,
        planes: np.ndarray,
        z_mm: np.ndarray,
        crop: Crop,
        frame: Sequence[float],
        height_mm: float | None = None,
    ) -> np.ndarray:
        """float32 (z, y, x) of planes (n, rows, columns) at falling `z_mm`, linear; 0 beyond them.

        `frame` is their left, right, top and bottom as shares of the cached square. The end planes reach half of
        `height_mm` beyond their middles (None: half the planes' distance).
        """
        made = np.zeros(self.shape, np.float32)
        values, there = self._sample_planes(planes, z_mm, crop, frame, height_mm)
        made[there] = values
        return made

    def _sample_planes(
        self, planes: np.ndarray, z_mm: np.ndarray, crop: Crop, frame: Sequence[float], height_mm: float | None
    ) -> tuple[np.ndarray, slice]:
        """`sample_square` on the planes that it reaches, and which these are."""
        left, right, top, bottom = (share * crop.size_px for share in frame)
        rows, columns = (
            (np.array(crop.to_cached(self.pixels(axis), self.pixels(axis))[axis]) + 0.5 - start)
            * planes.shape[axis + 1]
            / (end - start)
            - 0.5
            for axis, (start, end) in enumerate(((top, bottom), (left, right)))
        )
        matrix = np.array([[columns[1] - columns[0], 0, columns[0]], [0, rows[1] - rows[0], rows[0]]])
        size, flags = (self.shape[2], self.shape[1]), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        cut = np.stack([cv2.warpAffine(one, matrix, size, flags=flags) for one in planes.astype(np.float32)])
        step_mm = float(np.median(-np.diff(z_mm))) if len(z_mm) > 1 else self.voxel_mm
        half_mm = (step_mm if height_mm is None else height_mm) / 2
        reached = np.flatnonzero((self.plane_z_mm <= z_mm[0] + half_mm) & (self.plane_z_mm >= z_mm[-1] - half_mm))
        there = slice(reached[0], reached[-1] + 1) if len(reached) else slice(0, 0)
        return _along_z(cut, self.plane_z_mm[there], z_mm, 0.0), there


def report_frame(geometry: Geometry, slice_shape: tuple[int, int], centre_px: Sequence[float], side_mm: float) -> Frame:
    """The frame over the whole stack and `side_mm` about a middle (y, x) in the volume's pixels, inside the slices."""
    spacing = np.array(geometry.pixel_spacing_mm)
    extent_mm = np.minimum(side_mm, np.array(slice_shape) * spacing)
    depth_mm = float(geometry.z_mm[0] - geometry.z_mm[-1])
    voxel_mm = max(LEAST_MM, float(spacing.min()), (extent_mm.prod() * depth_mm / MOST_VOXELS) ** (1 / 3))
    count = np.floor(extent_mm / voxel_mm).astype(int)
    corner = np.asarray(centre_px) - (count - 1) / 2 * voxel_mm / spacing
    greatest = np.array(slice_shape) - 1 - (count - 1) * voxel_mm / spacing
    corner = corner.clip(0, np.maximum(greatest, 0))
    planes = int(np.floor(depth_mm / voxel_mm)) + 1
    return Frame(geometry, (planes, int(count[0]), int(count[1])), voxel_mm, (float(corner[0]), float(corner[1])))


def _along_z(planes: np.ndarray, wanted_mm: np.ndarray, there_mm: np.ndarray, height_mm: float) -> np.ndarray:
    """Planes at places along z: linear between neighbours, the mean over a height."""
    offsets_mm = np.array([0.0]) if height_mm <= 0 else np.array([-0.25, 0.25]) * height_mm
    made = np.zeros((len(wanted_mm), *planes.shape[1:]), np.float32)
    for offset_mm in offsets_mm:
        index = slice_index(wanted_mm + offset_mm, there_mm)
        lower = np.minimum(index.astype(int), max(0, len(planes) - 2))
        share = (index - lower).astype(np.float32)
        upper = np.minimum(lower + 1, len(planes) - 1)
        for out, low, high, part in zip(made, lower, upper, share, strict=True):
            out += ((1 - part) * planes[low] + part * planes[high]) / len(offsets_mm)
    return made
