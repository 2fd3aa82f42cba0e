"""One level at a time: images evenly spaced over its extent, cut about its middle, with its mask as the last channel.

All in mm, so that neither the scanner nor the size of the cached pixels matters. The image is interpolated once, from
the cached pixels straight to the moved crop.
"""

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from scipy import ndimage

from cspine.anatomy import LEVELS
from cspine.config import Augment, Config
from cspine.data.levels3d import level_labels
from cspine.data.slices import nearest_slices, neighbour_offsets_mm
from cspine.errors import UserError
from cspine.level_maps import LevelMap

# Of a worn mask: what is lost lies below this of a smooth random field of variance 1 at its knots, a quarter of all;
# the greatest blur; and how far it lies away along each axis, a standard deviation.
LOST_BELOW, SOFT_VOXELS, AWAY_MM = -0.4, 1.0, 1.5


@dataclass(frozen=True, eq=False)
class LevelPlace:
    """Where a level lies in a study. In y and x, mm from the middle of the cached field."""

    probabilities: np.ndarray  # uint8 (planes, y, x): the level's part of the map
    plane_z_mm: np.ndarray  # (planes,) falling
    corner_mm: tuple[float, float]  # outer corner of the first voxel
    voxel_mm: float
    centre_mm: tuple[float, float]  # middle of the level's box
    top_mm: float  # outer faces of the level
    bottom_mm: float
    volume_mm3: float


@dataclass(frozen=True)
class Move:
    """How a crop in training differs from the plain one; shifts are shares of the side, in z of the images' step."""

    rotate_deg: float = 0.0
    scale: float = 1.0
    shift_y: float = 0.0
    shift_x: float = 0.0
    shift_z: float = 0.0
    mirror: bool = False
    upside_down: bool = False


def find_levels(level_map: LevelMap, threshold: float) -> list[LevelPlace | None]:
    """The place of each of C1..C7, by the largest piece of the voxels where the level is likeliest; None if absent."""
    labels = level_labels(level_map.probabilities, 255 * threshold)
    boxes = ndimage.find_objects(labels, len(LEVELS))
    return [None if box is None else _place(level_map, labels, level, box) for level, box in enumerate(boxes)]


def _place(level_map: LevelMap, labels: np.ndarray, level: int, box: tuple[slice, ...]) -> LevelPlace:
    side = labels.shape[-1]
    voxel_mm, half_mm = level_map.field_mm / side, level_map.field_mm / 2
    planes_mm = level_map.plane_z_mm
    height_mm = float(planes_mm[0] - planes_mm[1]) if len(planes_mm) > 1 else voxel_mm
    # A voxel more on every side, where the probability falls off.
    wide = tuple(slice(max(0, part.start - 1), part.stop + 1) for part in box)
    return LevelPlace(
        probabilities=np.ascontiguousarray(level_map.probabilities[level][wide]),
        plane_z_mm=planes_mm[wide[0]],
        corner_mm=(wide[1].start * voxel_mm - half_mm, wide[2].start * voxel_mm - half_mm),
        voxel_mm=voxel_mm,
        centre_mm=tuple((part.start + part.stop) / 2 * voxel_mm - half_mm for part in box[1:]),  # type: ignore[arg-type]
        top_mm=float(planes_mm[box[0].start]) + height_mm / 2,
        bottom_mm=float(planes_mm[box[0].stop - 1]) - height_mm / 2,
        volume_mm3=float(np.count_nonzero(labels[box] == level + 1) * height_mm * voxel_mm**2),
    )


def draw_move(augment: Augment, seed: int) -> Move:
    """The move that a seed draws; beside what the config asks for, the images move by up to half a step along z."""
    rng = np.random.default_rng([seed, 3])
    values = rng.uniform(-1, 1, 5)
    mirror, upside_down = rng.random(2) < (augment.horizontal_flip, augment.vertical_flip)
    return Move(
        rotate_deg=augment.rotate_deg * values[0],
        scale=1 + augment.scale * values[1],
        shift_y=augment.shift_y * values[2],
        shift_x=augment.shift_x * values[3],
        shift_z=values[4] / 2,
        mirror=bool(mirror),
        upside_down=bool(upside_down),
    )


def worn_place(place: LevelPlace, rng: np.random.Generator) -> LevelPlace:
    """The place with a mask as poor as stage 1's may be: a piece of it lost, its edges soft, all of it some mm away.

    The images stay where they are.
    """
    shape = place.probabilities.shape
    coarse = rng.standard_normal((3, 3, 3))
    lost = ndimage.zoom(coarse, np.array(shape) / 3, order=1, grid_mode=True, mode="nearest") < LOST_BELOW
    soft = ndimage.gaussian_filter(np.where(lost, 0.0, place.probabilities), rng.uniform(0, SOFT_VOXELS))
    away_mm = AWAY_MM * rng.standard_normal(3)
    return replace(
        place,
        probabilities=soft.round().astype(np.uint8),
        plane_z_mm=place.plane_z_mm + away_mm[0],
        corner_mm=(place.corner_mm[0] + float(away_mm[1]), place.corner_mm[1] + float(away_mm[2])),
    )


def image_z_mm(place: LevelPlace, config: Config, move: Move | None = None) -> np.ndarray:
    """(slices,) the places of a level's images, cranial first: the middles of equal parts of level and margin."""
    count, margin_mm = config.crop.slices, config.crop.margin_mm
    length_mm = place.top_mm - place.bottom_mm + 2 * margin_mm
    parts = (np.arange(count) + 0.5 + (move.shift_z if move else 0.0)) / count
    return place.top_mm + margin_mm - parts * length_mm


def cut_level(
    volume: np.ndarray, z_mm: np.ndarray, place: LevelPlace, config: Config, move: Move | None = None
) -> np.ndarray:
    """The images of a level, uint8 (slices, channels + 1, size, size), from a cached volume (z, windows, y, x).

    Channels as those of data/slices.py (windows of the most cranial neighbour first), the level's mask last: 255 is
    certain. Beyond the field all is 0.
    """
    z_images = image_z_mm(place, config, move)
    to_field = _crop_to_field(place, config, move or Move())
    indices = nearest_slices(z_mm, z_images[:, None] + neighbour_offsets_mm(config.data))
    # A slice that serves several images is cut once.
    used, which = np.unique(indices, return_inverse=True)
    ratio = volume.shape[-1] / field_mm(config)
    corner = -field_mm(config) / 2
    size = config.data.image_size_px
    cut = _warp([page for index in used for page in volume[index]], to_field, ratio, (corner, corner), size)
    pixels = cut.reshape(len(used), -1, size, size)[which.reshape(indices.shape)]
    mask = _warp(_planes_at(place, z_images), to_field, 1 / place.voxel_mm, place.corner_mm, size)
    return np.concatenate([pixels.reshape(len(indices), -1, size, size), mask[:, None]], axis=1)


def crop_points_mm(place: LevelPlace, config: Config, move: Move | None, points_px: np.ndarray) -> np.ndarray:
    """Where pixels (n, 2) of a level's images, x and y, lie in mm from the middle of the cached field."""
    to_field = _crop_to_field(place, config, move or Move())
    return points_px @ to_field[:, :2].T + to_field[:, 2]


def crop_frame(place: LevelPlace, config: Config) -> tuple[float, float, float, float]:
    """Left, right, top and bottom of a level's images, as shares of the cached square from its upper left."""
    half = config.crop.side_mm / 2
    y, x = place.centre_mm
    left, right, top, bottom = (0.5 + end / field_mm(config) for end in (x - half, x + half, y - half, y + half))
    return left, right, top, bottom


def field_mm(config: Config) -> float:
    """The side of the cached square. Raises UserError where it is not fixed in mm."""
    if config.preprocess.field_mm is None:
        raise UserError(f"{config.name}: level crops need a field of fixed size; set preprocess.field_mm")
    return config.preprocess.field_mm


def _crop_to_field(place: LevelPlace, config: Config, move: Move) -> np.ndarray:
    """(2, 3) from crop pixels (x, y, 1) to mm (x, y) from the middle of the field."""
    size, side_mm = config.data.image_size_px, config.crop.side_mm
    step_mm = side_mm / size * move.scale
    flip = np.diag([-1.0 if move.mirror else 1.0, -1.0 if move.upside_down else 1.0])
    angle = np.deg2rad(move.rotate_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = step_mm * turn @ flip
    middle = np.array([place.centre_mm[1] + move.shift_x * side_mm, place.centre_mm[0] + move.shift_y * side_mm])
    return np.column_stack([linear, middle - linear @ np.full(2, (size - 1) / 2)])


def _warp(
    images: list[np.ndarray], to_field: np.ndarray, per_mm: float, corner_mm: tuple[float, float], size: int
) -> np.ndarray:
    """uint8 (n, size, size): the crop of images whose pixels, so many a mm, begin at a corner (y, x) of the field."""
    matrix = to_field * per_mm
    matrix[:, 2] -= np.array([corner_mm[1], corner_mm[0]]) * per_mm + 0.5
    flags: Any = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    made = np.empty((len(images), size, size), np.uint8)
    for image, out in zip(images, made, strict=True):
        cv2.warpAffine(image, matrix, (size, size), dst=out, flags=flags)
    return made


def _planes_at(place: LevelPlace, z_mm: np.ndarray) -> list[np.ndarray]:
    """The level's probabilities at places along z, uint8 (y, x) each, linear between planes and 0 beyond."""
    planes = len(place.plane_z_mm)
    index = np.interp(-z_mm, -place.plane_z_mm, np.arange(planes)) if planes > 1 else np.zeros(len(z_mm))
    lower = np.minimum(index.astype(int), max(0, planes - 2))
    share = (index - lower)[:, None, None]
    below = place.probabilities[np.minimum(lower + 1, planes - 1)]
    values = (1 - share) * place.probabilities[lower] + share * below
    inside = (z_mm <= place.plane_z_mm[0]) & (z_mm >= place.plane_z_mm[-1])
    return list(np.rint(values * inside[:, None, None]).astype(np.uint8))
