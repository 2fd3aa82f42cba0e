"""Segmentations on the grid of their CT: mapped through the NIfTI affine, never by a fixed flip."""

import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cspine.anatomy import LEVELS, MASK_LABELS
from cspine.data.geometry import Geometry
from cspine.data.nifti import open_image
from cspine.errors import UserError

# A level counts as visible on a slice from this area on; masks hold specks of a few voxels far from their vertebra.
SPECK_MM2 = 2.5


def load_mask(file: Path, geometry: Geometry, shape: tuple[int, int, int]) -> np.ndarray:
    """Labels 0 to 7 as uint8 (z, y, x) on the study's voxels, nearest neighbour; thoracic labels become 0.

    Raises UserError naming the file if it cannot be read, holds no C1-C7, or less than half of it lies inside the CT.
    """
    image, to_index = _open(file)
    labels = _labels(file, image)
    result = np.zeros(shape, np.uint8)
    rows, columns = np.arange(shape[1]), np.arange(shape[2])
    for z in range(shape[0]):
        origin, step_y, step_x = _index_steps(to_index, geometry, z)
        index = [
            np.rint(origin[axis] + step_y[axis] * rows[:, None] + step_x[axis] * columns[None, :]).astype(np.intp)
            for axis in range(3)
        ]
        inside = np.logical_and.reduce([(i >= 0) & (i < size) for i, size in zip(index, labels.shape, strict=True)])
        values = np.rint(labels[tuple(i[inside] for i in index)])
        result[z][inside] = np.where(np.isin(values, MASK_LABELS), values, 0)
    _require_fit(file, labels, to_index, result, geometry)
    return result


def _open(file: Path) -> tuple[Any, np.ndarray]:
    """The image, its voxels not yet read, and the 4x4 matrix from LPS mm to its indices."""
    try:
        image, to_lps = open_image(file)
    except (OSError, ValueError) as error:
        raise _unreadable(file, error) from error
    if len(image.shape) != 3:
        raise UserError(f"{file}: a mask has three axes, this has {len(image.shape)}; get it again")
    return image, np.linalg.inv(to_lps)


def _labels(file: Path, image: Any) -> np.ndarray:
    """The voxels (i, j, k); an uncompressed file of integers stays on disk until they are asked for."""
    try:
        return np.asanyarray(image.dataobj)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> UserError:
    return UserError(f"{file}: not a readable NIfTI mask ({' '.join(str(error).split())}); get it again")


def _index_steps(to_index: np.ndarray, geometry: Geometry, z: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mask indices (3,) of slice z's first voxel, and their change per row and per column."""
    step_y = geometry.column_direction * geometry.pixel_spacing_mm[0]
    step_x = geometry.row_direction * geometry.pixel_spacing_mm[1]
    origin = to_index[:3, :3] @ geometry.positions_mm[z] + to_index[:3, 3]
    return origin, to_index[:3, :3] @ step_y, to_index[:3, :3] @ step_x


def _require_fit(file: Path, labels: np.ndarray, to_index: np.ndarray, result: np.ndarray, geometry: Geometry) -> None:
    labelled = sum(np.count_nonzero(np.isin(plane, MASK_LABELS)) for plane in np.moveaxis(labels, -1, 0))
    if not labelled:
        raise UserError(f"{file}: holds no label from 1 to 7 (C1 to C7)")
    volume_mm3 = labelled / abs(np.linalg.det(to_index[:3, :3]))
    voxel_mm3 = np.prod(geometry.pixel_spacing_mm) * geometry.spacing_mm
    share = np.count_nonzero(result) * voxel_mm3 / volume_mm3
    if share < 0.5:
        raise UserError(
            f"{file}: only {share:.0%} of the mask lies inside its CT, so it belongs to another study or its affine is "
            "wrong; get the file again, or delete it to train without it"
        )


def header_overlap(file: Path, geometry: Geometry, shape: tuple[int, int, int]) -> float:
    """Share of the mask's grid that lies inside the CT, by the headers alone. Raises UserError if unreadable."""
    image, to_index = _open(file)
    lattice = np.stack(np.meshgrid(*[np.linspace(0, size - 1, 9) for size in image.shape], indexing="ij"), axis=-1)
    to_lps = np.linalg.inv(to_index)
    points = lattice.reshape(-1, 3) @ to_lps[:3, :3].T + to_lps[:3, 3]
    to_voxel = np.linalg.inv(geometry.affine)
    voxels = points @ to_voxel[:3, :3].T + to_voxel[:3, 3]
    limits = np.array(shape[::-1]) - 1
    return float(np.mean(((voxels >= -1) & (voxels <= limits + 1)).all(axis=1)))


def level_presence(mask: np.ndarray, pixel_area_mm2: float = 0.125) -> np.ndarray:
    """bool (z, 7): the level's largest connected patch on the slice has at least 2.5 mm2 (20 pixels of the default)."""
    smallest = max(1, round(SPECK_MM2 / pixel_area_mm2))
    presence = np.zeros((len(mask), len(LEVELS)), bool)
    for z, plane in enumerate(mask):
        counts = np.bincount(plane.ravel(), minlength=len(LEVELS) + 1)
        for level in np.flatnonzero(counts[1 : len(LEVELS) + 1] >= smallest):
            _, _, stats, _ = cv2.connectedComponentsWithStats((plane == level + 1).astype(np.uint8), connectivity=8)
            presence[z, level] = stats[1:, cv2.CC_STAT_AREA].max() >= smallest
    return presence
