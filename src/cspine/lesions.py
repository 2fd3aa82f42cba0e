"""Boxes on slices, joined to lesions in the patient: `boxes.csv` and the study's geometry in, `lesions.csv` out.

Two boxes belong to one lesion where they lie at most so many mm apart along the stack, whatever the number of slices
between them, and one covers enough of the other. So gaps between boxes are bridged, and two fractures of one slice stay
two.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cspine.anatomy import LEVELS
from cspine.data.geometry import Geometry
from cspine.data.grid import slice_index
from cspine.data.levels3d import level_labels
from cspine.data.preprocess import Crop
from cspine.level_maps import LevelMap
from cspine.tables import FOUND_BOXES, STUDY, require_columns

AXES = ("x", "y", "z")
CENTRE = tuple(f"{axis}_mm" for axis in AXES)
LEAST, GREATEST = (tuple(f"{axis}_{end}_mm" for axis in AXES) for end in ("min", "max"))
LESION_COLUMNS = (STUDY, "lesion", "level", "score", "slices", *CENTRE, *LEAST, *GREATEST)
# A level is on a slice, or in a voxel, from this probability on.
FOUND = 0.5
NEAR_MM = 25.0


@dataclass(frozen=True)
class Linking:
    """When boxes are of one lesion."""

    gap_mm: float = 5.0  # greatest distance along the stack, as annotators leave out slices
    overlap: float = 0.3  # least share of the smaller box that the other covers


def link_boxes(boxes: pd.DataFrame, geometry: Geometry, linking: Linking | None = None) -> np.ndarray:
    """(n,) the lesion, 0 ..., of each box of one study; lesions are numbered by their greatest score.

    `boxes` has file_number, x, y, width, height, score. Raises ValueError for a slice that the study lacks.
    """
    rules = linking or Linking()
    slices = slices_of(boxes, geometry)
    corners, z_mm = volume_corners(boxes, geometry, slices), geometry.z_mm[slices]
    first, second = np.triu_indices(len(boxes), 1)
    # Written in decimals, places that are 5 mm apart differ by a little more.
    near = np.abs(z_mm[first] - z_mm[second]) <= rules.gap_mm + 1e-6
    first, second = first[near], second[near]
    joined = _overlap_of_smaller(corners[first], corners[second]) >= rules.overlap
    edges = coo_array((np.ones(joined.sum()), (first[joined], second[joined])), shape=(len(boxes),) * 2)
    _, pieces = connected_components(edges, directed=False)
    return _by_score(pieces, boxes["score"].to_numpy(float), z_mm, corners)


def find_lesions(
    uid: str,
    boxes: pd.DataFrame,
    geometry: Geometry,
    levels: np.ndarray | None = None,
    linking: Linking | None = None,
) -> pd.DataFrame:
    """The lesions of one study under LESION_COLUMNS, the surest first; all places are LPS mm.

    The score is the greatest of a lesion's boxes; the centre their mean, weighted by score and area; the extent
    reaches to the outer faces of their voxels. `levels` names the level of each box, -1 for none, as `levels_by_map` or
    `levels_by_presence` do; without it the column `level` of the boxes does. A lesion has the level that most of its
    boxes' scores speak for; empty where none does.
    """
    require_columns(boxes, FOUND_BOXES[1:], f"the boxes of study {uid}")
    lesions = link_boxes(boxes, geometry, linking)
    slices = slices_of(boxes, geometry)
    corners, scores = volume_corners(boxes, geometry, slices), boxes["score"].to_numpy(float)
    named = _named_levels(boxes) if levels is None else levels
    rows = []
    for lesion in range(lesions.max(initial=-1) + 1):
        mine = lesions == lesion
        least, greatest = _extent_mm(corners[mine], slices[mine], geometry)
        centre = _centre_mm(corners[mine], slices[mine], scores[mine], geometry)
        level = _voted(named[mine], scores[mine])
        count = len(np.unique(slices[mine]))
        rows.append([uid, lesion + 1, level, scores[mine].max(), count, *centre, *least, *greatest])
    return pd.DataFrame(rows, columns=list(LESION_COLUMNS))


def levels_by_map(boxes: pd.DataFrame, geometry: Geometry, found: LevelMap, crop: Crop) -> np.ndarray:
    """(n,) the level, 0 to 6, that most voxels of the map in each box have.

    Where they have none, as about the tip of a process, that of the nearest voxel within NEAR_MM of the box's middle;
    else -1. `crop` is the square that the map shares with the cached pixels.
    """
    labels = level_labels(found.probabilities, 255 * FOUND)
    nearest = _nearest_levels(labels, found)
    side, slices = labels.shape[-1], slices_of(boxes, geometry)
    corners = volume_corners(boxes, geometry, slices)
    planes = slice_index(geometry.z_mm[slices], found.plane_z_mm)
    ratio = side / crop.size_px
    # Voxels whose middles lie in the box, at least the one that holds its middle.
    top, left = ((np.array(crop.to_cached(corners[:, 1], corners[:, 0])) + 0.5) * ratio).clip(0, side - 1)
    bottom, right = ((np.array(crop.to_cached(corners[:, 3], corners[:, 2])) + 0.5) * ratio).clip(0, side)
    named = np.full(len(boxes), -1)
    for row in range(len(boxes)):
        plane = labels[round(float(planes[row]))]
        inside = plane[int(top[row]) : int(np.ceil(bottom[row])), int(left[row]) : int(np.ceil(right[row]))]
        votes = np.bincount(inside.ravel(), minlength=len(LEVELS) + 1)[1:]
        middle = round(float(planes[row])), int((top[row] + bottom[row]) / 2), int((left[row] + right[row]) / 2)
        named[row] = votes.argmax() if votes.any() else nearest[middle]
    return named


def _nearest_levels(labels: np.ndarray, found: LevelMap) -> np.ndarray:
    """int (planes, y, x): the level, 0 to 6, of the nearest labelled voxel within NEAR_MM, else -1."""
    if not labels.any():
        return np.full(labels.shape, -1)
    voxel_mm = found.field_mm / labels.shape[-1]
    height_mm = float(found.plane_z_mm[0] - found.plane_z_mm[1]) if len(labels) > 1 else voxel_mm
    sampling = (height_mm, voxel_mm, voxel_mm)
    away_mm, indices = ndimage.distance_transform_edt(labels == 0, sampling, return_indices=True)
    return np.where(away_mm <= NEAR_MM, labels[tuple(indices)].astype(int) - 1, -1)


def levels_by_presence(boxes: pd.DataFrame, geometry: Geometry, presence: np.ndarray) -> np.ndarray:
    """(n,) the likeliest level, 0 to 6, on each box's slice by the slices' probabilities (z, 7); -1 where none is."""
    seen = presence[slices_of(boxes, geometry)]
    return np.where(seen.max(axis=1) > FOUND, seen.argmax(axis=1), -1)


def slices_of(boxes: pd.DataFrame, geometry: Geometry) -> np.ndarray:
    """(n,) the index of each box's slice. Raises ValueError where the study has no such file number."""
    index = {int(number): z for z, number in enumerate(geometry.file_numbers)}
    numbers = boxes["file_number"].astype(int)
    if lacking := sorted(set(numbers) - set(index)):
        raise ValueError(f"boxes on file numbers that the study lacks: {lacking[:5]}")
    return numbers.map(index).to_numpy(int)


def volume_corners(boxes: pd.DataFrame, geometry: Geometry, slices: np.ndarray) -> np.ndarray:
    """(n, 4) left, top, right, bottom in the volume's pixels, to the outer edges: pixel 3 reaches from 2.5 to 3.5."""
    x, y, width, height = boxes[["x", "y", "width", "height"]].to_numpy(float).T
    top, left = geometry.from_file_pixels(slices, y - 0.5, x - 0.5)
    return np.stack([left, top, left + width, top + height], axis=1)


def _overlap_of_smaller(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n,) share of the smaller of two boxes, corners (n, 4), that the other covers."""
    inner = np.minimum(first[:, 2:], second[:, 2:]) - np.maximum(first[:, :2], second[:, :2])
    smaller = np.minimum(*((box[:, 2:] - box[:, :2]).prod(axis=1) for box in (first, second)))
    return inner.clip(0).prod(axis=1) / smaller


def _by_score(pieces: np.ndarray, scores: np.ndarray, z_mm: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """The same pieces, numbered by their greatest score, then from the head down, then from the left of the image."""

    def key(piece: int) -> tuple[float, ...]:
        mine = pieces == piece
        return -scores[mine].max(), -z_mm[mine].max(), *corners[mine].min(axis=0)

    order = sorted(np.unique(pieces).tolist(), key=key)
    return np.argsort(order)[pieces] if len(pieces) else pieces.astype(int)


def _extent_mm(corners: np.ndarray, slices: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """The least and greatest LPS mm of boxes; each fills half the way to the neighbouring slices."""
    left, top, right, bottom = corners.T
    places = np.concatenate(
        [geometry.voxel_to_lps(slices, y, x) for x, y in ((left, top), (right, top), (left, bottom), (right, bottom))]
    )
    steps_mm = _half_steps_mm(geometry)[np.tile(slices, 4)]
    faces = np.concatenate([places + steps_mm[:, :1] * geometry.normal, places - steps_mm[:, 1:] * geometry.normal])
    return faces.min(axis=0), faces.max(axis=0)


def _half_steps_mm(geometry: Geometry) -> np.ndarray:
    """(z, 2) half the distance from each slice to the one above and below; beyond a wide gap the usual distance."""
    usual = geometry.spacing_mm
    steps = np.minimum(-np.diff(geometry.z_mm), 2 * usual) / 2
    return np.stack([np.append(usual / 2, steps), np.append(steps, usual / 2)], axis=1)


def _centre_mm(corners: np.ndarray, slices: np.ndarray, scores: np.ndarray, geometry: Geometry) -> np.ndarray:
    middles = (corners[:, :2] + corners[:, 2:]) / 2
    weights = scores * (corners[:, 2:] - corners[:, :2]).prod(axis=1)
    places = geometry.voxel_to_lps(slices, middles[:, 1], middles[:, 0])
    return np.average(places, axis=0, weights=weights if weights.any() else None)


def _named_levels(boxes: pd.DataFrame) -> np.ndarray:
    places = {level: place for place, level in enumerate(LEVELS)}
    return np.array([places.get(str(level), -1) for level in boxes["level"]], int)


def _voted(named: np.ndarray, scores: np.ndarray) -> str:
    known = named >= 0
    votes = np.bincount(named[known], weights=scores[known], minlength=len(LEVELS))
    return LEVELS[int(votes.argmax())] if votes.any() else ""
