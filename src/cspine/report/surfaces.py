"""The levels' bones as surfaces: marching cubes, smoothed and thinned out."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from skimage.measure import marching_cubes

from cspine.anatomy import LEVELS

CELL_MM = 1.4  # vertices nearer to each other than this become one
VOXEL_MM = 1.0
LEAST_VERTICES = 30
# Taubin's filter (SIGGRAPH 1995): what it takes away it gives back, so that surfaces do not shrink.
SHRINK, GROW, ROUNDS = 0.5, -0.53, 8


@dataclass(frozen=True, eq=False)
class Surface:
    """Triangles in the frame's voxels: `vertices` float32 (n, 3) in z, y, x, `faces` int32 (m, 3)."""

    vertices: np.ndarray
    faces: np.ndarray


def level_surfaces(bones: np.ndarray, voxel_mm: float) -> list[Surface | None]:
    """A surface of each of C1..C7 from labels 0 to 7 (z, y, x); None for a level without any."""
    boxes = ndimage.find_objects(bones, len(LEVELS))
    return [
        None if box is None else _surface(bones[box] == level, [part.start for part in box], voxel_mm)
        for level, box in enumerate(boxes, start=1)
    ]


def _surface(shape: np.ndarray, start: list[int], voxel_mm: float) -> Surface | None:
    made = _march(shape, voxel_mm)
    return None if made is None else Surface((made.vertices + start).astype(np.float32), made.faces)


def _march(shape: np.ndarray, voxel_mm: float) -> Surface | None:
    step = max(1.0, VOXEL_MM / voxel_mm)
    field = ndimage.gaussian_filter(np.pad(shape, 2).astype(np.float32), 0.35 * step)
    small = ndimage.zoom(field, 1 / step, order=1, grid_mode=True, mode="grid-constant") if step > 1 else field
    if small.max() <= 0.5 or small.min() >= 0.5:
        return None
    vertices, faces, _, _ = marching_cubes(small, 0.5)
    ratio = np.array(field.shape) / np.array(small.shape)
    vertices = (vertices + 0.5) * ratio - 0.5 - 2
    vertices, faces = _merge(_smooth(vertices, faces), faces, CELL_MM / voxel_mm)
    return Surface(vertices, faces) if len(vertices) >= LEAST_VERTICES else None


def _smooth(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    count = len(vertices)
    near = coo_array((np.ones(len(edges)), edges.T), shape=(count, count)).tocsr()
    near = ((near + near.T) > 0).astype(float)
    degree = np.maximum(near.sum(axis=1), 1)[:, None]
    for _ in range(ROUNDS):
        for factor in (SHRINK, GROW):
            vertices = vertices + factor * (near @ vertices / degree - vertices)
    return vertices


def _merge(vertices: np.ndarray, faces: np.ndarray, cell: float) -> tuple[np.ndarray, np.ndarray]:
    """Vertices of one cell become their mean (Rossignac and Borrel 1993); faces that lose a side go."""
    cells = np.floor(vertices / cell).astype(np.int64)
    _, which, counts = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    which = which.ravel()
    merged = np.stack([np.bincount(which, column) for column in vertices.T], axis=1) / counts[:, None]
    kept = which[faces]
    kept = kept[(kept[:, 0] != kept[:, 1]) & (kept[:, 1] != kept[:, 2]) & (kept[:, 2] != kept[:, 0])]
    return merged, np.unique(kept, axis=0).astype(np.int32)
