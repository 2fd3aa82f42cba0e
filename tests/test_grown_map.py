"""Level maps grown along bone, on blocks whose levels are known. Axes z (down), y (backwards), x."""

from dataclasses import replace

import numpy as np
import pytest

from cspine.config import Config, Preprocess, Volume
from cspine.data.grown_map import bone_window, grow_maps
from cspine.errors import UserError
from cspine.level_maps import LevelMap, level_map
from cspine.windows import window_hu

FIELD_MM, MAP_MM, SIZE_PX, STEP_MM = 96.0, 4.0, 120, 1.5
TISSUE_HU, BONE = 40.0, 600.0
TOPS_MM = {3: 20.0, 4: 36.0, 5: 52.0}  # below the first slice
BODY_MM = 12.0


def grow_map(found: LevelMap, volume: np.ndarray, z_mm: np.ndarray, config: Config) -> LevelMap:
    return grow_maps([found], volume, z_mm, config)


def settings(**changes: float) -> Config:
    preprocess = Preprocess(windows=("soft_tissue", "wide"), field_mm=FIELD_MM, size_px=SIZE_PX)
    return Config(name="vol", task="vertebra/volume", preprocess=preprocess, volume=Volume(voxel_mm=MAP_MM, **changes))


def levels_at(z: np.ndarray, y: np.ndarray, x: np.ndarray, processes: bool) -> np.ndarray:
    """Labels at mm below the first slice and from the field's upper left: bodies, and processes that slope down."""
    labels = np.zeros(np.broadcast_shapes(z.shape, y.shape, x.shape), np.uint8)
    for level, top in TOPS_MM.items():
        body = (z >= top) & (z < top + BODY_MM) & (y > 20) & (y < 40) & (abs(x - 48) < 12)
        start = top + 4 + (y - 40) / 3
        process = (y >= 40) & (y < 68) & (abs(x - 48) < 4) & (z >= start) & (z < start + 6)
        labels[body | process if processes else body] = level
    return labels


def study(processes: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Cached pixels uint8 (z, windows, y, x) and z in mm."""
    z_mm = 200 - np.arange(60) * STEP_MM
    pixels_mm = (np.arange(SIZE_PX) + 0.5) * FIELD_MM / SIZE_PX
    labels = levels_at((200 - z_mm)[:, None, None], pixels_mm[:, None], pixels_mm, processes)
    hu = np.where(labels > 0, BONE, TISSUE_HU)
    shown = []
    for low, high in map(window_hu, ("soft_tissue", "wide")):
        shown.append(np.rint(255 * ((hu - low) / (high - low)).clip(0, 1)).astype(np.uint8))
    return np.stack(shown, axis=1), z_mm


def map_of(processes: bool, voxel_mm: float = MAP_MM) -> LevelMap:
    """The share of each level in each of the map's voxels, by 4 x 4 x 4 points in it."""
    offsets = (np.arange(4) + 0.5) / 4 * voxel_mm
    side, planes = round(FIELD_MM / voxel_mm), round(88 / voxel_mm)
    places = (np.arange(side)[:, None] * voxel_mm + offsets).ravel()
    depths = (np.arange(planes)[:, None] * voxel_mm + offsets).ravel()
    labels = levels_at(depths[:, None, None], places[:, None], places, processes)
    fine = np.stack([labels == level for level in range(1, 8)]).astype(float)
    shares = fine.reshape(7, planes, 4, side, 4, side, 4).mean(axis=(2, 4, 6))
    return level_map(shares, 200 - (np.arange(planes) + 0.5) * voxel_mm, FIELD_MM)


def test_bodies_become_whole_vertebrae_and_what_is_not_found_stays_so() -> None:
    volume, z_mm = study()
    found, true = map_of(processes=False), map_of(processes=True).probabilities
    grown = grow_map(found, volume, z_mm, settings(grow_mm=40.0))
    assert np.array_equal(grown.plane_z_mm, found.plane_z_mm)
    assert grown.field_mm == found.field_mm
    process = (true > 160) & (found.probabilities < 10)
    assert process.sum() > 30
    assert (grown.probabilities[process] > 200).mean() > 0.95
    assert not grown.probabilities[[0, 1, 5, 6]].any()
    # Where no level is there is none, but for voxels beside one.
    assert (grown.probabilities[true == 0] > 127).mean() < 0.002
    assert (grown.probabilities[true > 200] > 200).mean() > 0.98


@pytest.mark.parametrize("voxel_mm", [4.0, 2.4, 1.0, 0.75])
def test_the_maps_voxels_may_be_of_any_size(voxel_mm: float) -> None:
    volume, z_mm = study()
    true = map_of(processes=True, voxel_mm=voxel_mm).probabilities > 127
    grown = grow_map(map_of(False, voxel_mm), volume, z_mm, settings(grow_mm=40.0)).probabilities > 127
    assert 2 * (grown & true).sum() / (grown.sum() + true.sum()) > 0.8


def test_a_level_that_is_not_surely_found_keeps_its_values() -> None:
    volume, z_mm = study()
    found = map_of(processes=False)
    probabilities = found.probabilities.copy()
    probabilities[3] = probabilities[3] * 0.4
    grown = grow_map(replace(found, probabilities=probabilities), volume, z_mm, settings(grow_mm=40.0))
    assert np.array_equal(grown.probabilities[3], probabilities[3])
    assert (grown.probabilities[2] > 127).sum() > (found.probabilities[2] > 127).sum()


@pytest.mark.parametrize("slices", [slice(0, 60), slice(18, 19), slice(18, 21), slice(14, 60, 4)])
def test_short_and_sparse_stacks_grow_within_themselves(slices: slice) -> None:
    volume, z_mm = (values[slices] for values in study())
    found = map_of(processes=False)
    inside = (found.plane_z_mm <= z_mm[0] + MAP_MM) & (found.plane_z_mm >= z_mm[-1] - MAP_MM)
    found = replace(found, probabilities=found.probabilities[:, inside], plane_z_mm=found.plane_z_mm[inside])
    grown = grow_map(found, volume, z_mm, settings(grow_mm=40.0))
    assert grown.probabilities.shape == found.probabilities.shape
    assert grown.probabilities.any()


def test_a_reach_ends_the_growth() -> None:
    volume, z_mm = study()
    grown = grow_map(map_of(processes=False), volume, z_mm, settings(grow_mm=10.0)).probabilities
    rows_mm = (np.flatnonzero((grown > 127).any(axis=(0, 1, 3))) + 0.5) * MAP_MM
    assert rows_mm.max() == pytest.approx(50, abs=MAP_MM)


def test_an_empty_map_stays_empty_and_a_level_without_bone_stays() -> None:
    volume, z_mm = study()
    empty = map_of(processes=False)
    nothing = replace(empty, probabilities=np.zeros_like(empty.probabilities))
    assert not grow_map(nothing, volume, z_mm, settings(grow_mm=40.0)).probabilities.any()
    soft = np.full_like(volume, volume.min())
    kept = grow_map(empty, soft, z_mm, settings(grow_mm=40.0)).probabilities
    sure = empty.probabilities == 255
    assert (kept[sure] > 200).mean() > 0.9


def test_the_window_that_shows_bone_is_taken_or_asked_for() -> None:
    config = settings()
    assert bone_window(config) == 1
    several = replace(config, preprocess=replace(config.preprocess, windows=("bone", "soft_tissue", "-1000..2000")))
    assert bone_window(several) == 2
    blind = replace(config, preprocess=replace(config.preprocess, windows=("soft_tissue", "-100..400", "300..2000")))
    with pytest.raises(UserError, match=r"vol: volume\.grow_mm needs a window that shows bone"):
        bone_window(blind)
    flat = replace(config, preprocess=replace(config.preprocess, denoise="region_mean"))
    with pytest.raises(UserError, match=r"set preprocess\.denoise=none"):
        bone_window(flat)
