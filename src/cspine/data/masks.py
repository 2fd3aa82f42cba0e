"""Segmentations on the grid of their CT: mapped through the NIfTI affine, never by a fixed flip."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from cspine.anatomy import MASK_LABELS
from cspine.data.geometry import Geometry
from cspine.data.levels import clean_levels
from cspine.data.nifti import open_image
from cspine.data.preprocess import Crop
from cspine.errors import UserError


def load_mask(file: Path, geometry: Geometry, shape: tuple[int, int, int]) -> np.ndarray:
    """Labels 0 to 7 as uint8 (z, y, x) on the study's voxels, nearest neighbour, cleaned; thoracic labels become 0.

    Raises UserError naming the file if it cannot be read, holds no C1-C7, or less than half of it lies inside the CT.
    """
    image, to_index = _open(file)
    labels = _labels(file, image)
    result = np.zeros(shape, np.uint8)
    rows, columns = np.arange(shape[1])[:, None], np.arange(shape[2])[None, :]
    for z in range(shape[0]):
        origin, step_y, step_x = _index_steps(to_index, geometry, z)
        indices = [_nearest(origin[axis], step_y[axis], step_x[axis], rows, columns) for axis in range(3)]
        inside = [(index >= 0) & (index < size) for index, size in zip(indices, labels.shape, strict=True)]
        if all(part.any() for part in inside):
            limited = tuple(index.clip(0, size - 1) for index, size in zip(indices, labels.shape, strict=True))
            result[z] = _cervical(labels[limited]) * (inside[0] & inside[1] & inside[2])
    _require_fit(file, labels, to_index, result, geometry)
    return clean_levels(result, (geometry.spacing_mm, *geometry.pixel_spacing_mm))


def _nearest(origin: float, step_y: float, step_x: float, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """One mask index of a slice's voxels, (rows, columns); 1 where it does not change along an axis.

    Grids nearly always lie parallel, and then the three indices need no full array each, which is four times as fast.
    """
    # Over the whole axis a smaller step moves the index by less than a hundredth.
    y = step_y * rows if abs(step_y) * len(rows) > 0.01 else step_y * rows[len(rows) // 2 :][:1]
    x = step_x * columns if abs(step_x) * columns.size > 0.01 else step_x * columns[:, columns.size // 2 :][:, :1]
    return np.rint(origin + y + x).astype(np.intp)


def _cervical(values: np.ndarray) -> np.ndarray:
    """Labels rounded to uint8 where they are C1 to C7, else 0; files exist whose labels are floats."""
    inside = (values > MASK_LABELS[0] - 0.5) & (values < MASK_LABELS[-1] + 0.5)
    whole = values if np.issubdtype(values.dtype, np.integer) else np.rint(values)
    return np.where(inside, whole, 0).astype(np.uint8)


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
    labelled = sum(np.count_nonzero(_cervical(plane)) for plane in np.moveaxis(labels, -1, 0))
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


def cut_mask(labels: np.ndarray, crop: Crop) -> np.ndarray:
    """Labels (z, y, x) on the pixels that a crop makes of the slices, nearest neighbour; 0 beyond the slice."""
    places = np.arange(crop.size_px)
    nearest = [np.rint(values).astype(np.intp) for values in crop.to_original(places, places)]
    inside = [(index >= 0) & (index < size) for index, size in zip(nearest, labels.shape[1:], strict=True)]
    rows, columns = (index[kept] for index, kept in zip(nearest, inside, strict=True))
    cut = np.zeros((len(labels), crop.size_px, crop.size_px), np.uint8)
    cut[:, inside[0][:, None] & inside[1]] = labels[:, rows[:, None], columns].reshape(len(labels), -1)
    return cut


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
