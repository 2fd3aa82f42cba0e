"""Which bone belongs to which level: grown from stage 1's levels, which are coarse, along the study's own bone.

Stage 1 sees cubes of 4 mm: it is sure of the bodies and of most of the arches, and misses the processes. From where it
is sure each level grows along bone, the densest first (a watershed), so that neighbours meet where bone is weakest: in
their joints. What stage 1 does not know grows against them: the skull above C1, and levels that are not found.
"""

from collections.abc import Mapping

import numpy as np
from scipy import ndimage
from skimage.measure import block_reduce
from skimage.segmentation import watershed

from cspine.anatomy import LEVELS

BONE_HU = 220.0
# Levels grow on voxels of at least this size, and no further from what is found than a long spinous process.
VOXEL_MM, REACH_MM = 1.0, 40.0
# A level grows from where its probability is nearly its greatest.
SURE = 0.95
# Bone so much weaker costs as much as a mm of way; without it a level may run along the front of the next one.
HU_PER_MM = 10.0
# What is denser, as metal is, is not taken earlier for it.
DENSEST_HU = 1500.0
# What grows against the levels does so from where stage 1 gives them less than this.
UNKNOWN = 0.1
# The skull begins so far above what is found of C1, across its ring.
ABOVE_C1_MM = 2.0
# Nearer to what is found of C2 than this lies its dens, which may rise over C1.
DENS_MM = 8.0
OTHER = len(LEVELS) + 1
# A region of which a smaller share is bone has none.
LEAST_BONE = 0.15


def level_bones(
    volume_hu: np.ndarray,
    labels: np.ndarray,
    probability: np.ndarray,
    voxel_mm: float,
    reach_mm: float = REACH_MM,
) -> np.ndarray:
    """Labels 1 to 7, uint8 (z, y, x), of the levels' bones with their marrow.

    `labels` say where levels are found and `probability` how likely, on the voxels of the HU. Further than `reach_mm`
    from there nothing is taken. A level without bone keeps its labels.
    """
    bones = solid_bones(volume_hu, grow_levels(volume_hu, labels, probability, voxel_mm, reach_mm), voxel_mm)
    boneless = np.array([False, *(box is None for box in ndimage.find_objects(bones, len(LEVELS)))])
    return np.where(boneless[labels], labels, bones)


def grow_levels(
    volume_hu: np.ndarray, labels: np.ndarray, probability: np.ndarray, voxel_mm: float, reach_mm: float
) -> np.ndarray:
    """Regions 1 to 7, uint8 (z, y, x), that hold all bone of a level, and about it what is nearer than a mm."""
    if not labels.any():
        return labels
    box = _box_about(labels, reach_mm / voxel_mm)
    step = max(1.0, VOXEL_MM / voxel_mm)
    shape = labels[box].shape
    coarse = tuple(max(1, round(size / step)) for size in shape)
    hu = volume_hu[box].astype(np.float32)
    if step > 1:
        ratio = np.divide(coarse, shape)
        hu = ndimage.zoom(ndimage.gaussian_filter(hu, 0.35 * step), ratio, order=1, grid_mode=True, mode="nearest")
    there = _nearest(coarse, shape)
    grown = _grow(hu, labels[box][there], probability[box][there], step * voxel_mm, reach_mm)
    regions = np.zeros_like(labels)
    # Bone of a finer voxel may lie beside that of the coarse ones.
    wider = np.where(grown > 0, grown, ndimage.maximum_filter(grown, 3))
    regions[box] = np.where(wider == OTHER, 0, wider)[_nearest(shape, coarse)]
    return regions


def solid_bones(volume_hu: np.ndarray, regions: np.ndarray, voxel_mm: float) -> np.ndarray:
    """Labels, uint8 (z, y, x), of the bone in each region: its largest piece with its marrow, if it has any."""
    bones = np.zeros_like(regions)
    if not regions.any():
        return bones
    margin = 2
    whole = _box_about(regions, margin)
    bone = ndimage.gaussian_filter(volume_hu[whole].astype(np.float32), 0.5 / voxel_mm) > BONE_HU
    for level, box in enumerate(ndimage.find_objects(regions[whole], len(LEVELS)), start=1):
        if box is None:
            continue
        wide = tuple(slice(max(0, part.start - margin), part.stop + margin) for part in box)
        around = regions[whole][wide]
        mine = bone[wide] & (around == level)
        if mine.sum() > LEAST_BONE * (around == level).sum():
            bones[whole][wide][_solid(mine) & ((around == level) | (around == 0))] = level
    return bones


def _grow(hu: np.ndarray, labels: np.ndarray, probability: np.ndarray, voxel_mm: float, reach_mm: float) -> np.ndarray:
    """Levels, and OTHER, by watershed from where they are sure, within the bone in reach; 0 beyond."""
    bone = hu > BONE_HU
    best = np.array([probability.max(initial=0, where=labels == level) for level in range(OTHER)])
    sure = np.where((labels > 0) & (probability > SURE * best[labels]), labels, 0)
    seeds = sure.astype(np.int32)
    seeds[bone & (probability < UNKNOWN) & _others(labels, sure, voxel_mm)] = OTHER
    # Marrow may be weaker than bone is.
    allowed = (bone & _within(labels > 0, reach_mm / voxel_mm)) | (labels > 0)
    grown = watershed(-hu.clip(max=DENSEST_HU), seeds, mask=allowed, compactness=HU_PER_MM * voxel_mm)
    return grown.astype(np.uint8)


def _within(found: np.ndarray, reach: float) -> np.ndarray:
    """bool: what is nearer than a reach, in voxels, to what is found; told to two voxels, an eighth of the work."""
    thinned = block_reduce(found, 2, np.any)
    near = ndimage.distance_transform_edt(~thinned, sampling=2.0) <= reach
    return near[np.ix_(*(np.arange(size) // 2 for size in found.shape))]


def _others(labels: np.ndarray, sure: np.ndarray, voxel_mm: float) -> np.ndarray:
    """bool (z, y, x): where the skull must be, and levels beside those found, as far as their places tell."""
    found = [level for level in range(1, OTHER) if (labels == level).any()]
    other = np.zeros(labels.shape, bool)
    if len(found) < 2:
        return other
    places = {level: np.argwhere(sure == level) for level in found}
    middles = {level: places[level].mean(axis=0) for level in found}
    if found[0] == 1:
        skull = _above(labels == 1, middles[found[1]], ABOVE_C1_MM / voxel_mm)
        other |= skull & ~_within(labels == found[1], DENS_MM / voxel_mm)
    for level in set(range(found[0] - 2, found[-1] + 3)) - set(found):
        if level > 0:
            nearest = min(found, key=lambda one: abs(one - level))
            moved = places[nearest] + np.rint((level - nearest) * _step(middles, nearest)).astype(int)
            inside = ((moved >= 0) & (moved < labels.shape)).all(axis=1)
            other[tuple(moved[inside].T)] = True
    return other


def _above(ring: np.ndarray, below: np.ndarray, margin: float) -> np.ndarray:
    """bool: what lies more than a margin, in voxels, over a flat ring, on the side away from a place below it."""
    places = np.argwhere(ring)
    middle = places.mean(axis=0)
    normal = np.linalg.svd(places - middle, full_matrices=False)[2][-1]
    normal *= np.sign((middle - below) @ normal) or 1.0
    top = np.percentile((places - middle) @ normal, 95) + margin
    z, y, x = (np.arange(size) - at for size, at in zip(ring.shape, middle, strict=True))
    return normal[0] * z[:, None, None] + normal[1] * y[:, None] + normal[2] * x > top


def _step(middles: Mapping[int, np.ndarray], level: int) -> np.ndarray:
    """From a level to the next lower one, in voxels, by the nearest other level."""
    other = min((one for one in middles if one != level), key=lambda one: abs(one - level))
    return (middles[other] - middles[level]) / (other - level)


def _solid(bone: np.ndarray) -> np.ndarray:
    """The largest piece of bone with its marrow: cavities and small gaps closed."""
    closed = ndimage.binary_closing(np.pad(bone, 2), iterations=2)[2:-2, 2:-2, 2:-2] | bone
    pieces, count = ndimage.label(ndimage.binary_fill_holes(closed), np.ones((3, 3, 3)))
    if count > 1:
        pieces = pieces == np.bincount(pieces.ravel())[1:].argmax() + 1
    return pieces > 0


def _box_about(labels: np.ndarray, margin: float) -> tuple[slice, ...]:
    """The box of all labels, wider by a margin in voxels."""
    found = ndimage.find_objects((labels > 0).astype(np.uint8))[0]
    return tuple(slice(max(0, part.start - int(margin)), part.stop + int(margin)) for part in found)


def _nearest(wanted: tuple[int, ...], there: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Indices of the nearest voxel of a grid of one shape for each of another over the same box."""
    return np.ix_(
        *(
            np.floor((np.arange(count) + 0.5) * size / count).astype(int)
            for count, size in zip(wanted, there, strict=True)
        )
    )
