"""Bones grown from stage 1's levels beside the masks.

On the report's voxels what the level maps say, the bone in it, and that grown; a process is what of a mask lies far
behind the middle of its body. And where heads on levels cut their images by the maps, and by grown ones, beside where
the mask's own edges are. Levels are out of fold.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage
from tqdm import tqdm

from cspine.anatomy import LEVELS
from cspine.bundle import describe_run
from cspine.config import Config
from cspine.data.background import FOUND
from cspine.data.bones import REACH_MM, level_bones, solid_bones
from cspine.data.cache import CachedStudy
from cspine.data.dicom import load_study
from cspine.data.grown_map import bone_window, fine_grid, grow_maps
from cspine.data.layout import image_folder, masks_on_disk, study_path
from cspine.data.level_crops import find_levels
from cspine.data.masks import load_mask
from cspine.errors import UserError
from cspine.held_out import placed
from cspine.level_maps import LevelMap, require_level_maps, run_level_map
from cspine.paths import find_dataset
from cspine.report.frame import Frame
from cspine.report.levels import thickest
from cspine.report.reader import found_levels, growth_mm, study_frame
from cspine.scores import text_table
from cspine.tasks.base import folds_in_use, open_studies
from cspine.voxel_scores import level_dice

BEHIND_MM = 25.0
LEAST_PROCESS_MM3 = 50.0
WAYS = ("by the map", "its bone", "grown")
# What heads cut their images by; of the middle the sides from front to back and from left to right.
EDGES = ("top", "bottom", "middle, front to back", "middle, left to right")


def bones_table(names: Sequence[str], config: Config, most: int) -> str:
    """Of a vertebra/volume run: by level the Dice coefficient and the share of the processes, means over studies.

    Of at most so many studies with masks. Raises UserError for no run, and for one without level maps.
    """
    if len(names) != 1:
        raise UserError("bones: name one run of vertebra/volume: --runs vertebra-volume")
    run = Path(config.paths.oof) / names[0]
    require_level_maps(run, "bones", "--runs")
    own = placed(describe_run(run.parent, run.name).typed_config(), config)
    studies = [study for study in open_studies(own, folds_in_use(own)) if study.presence is not None][:most]
    if not studies:
        raise UserError(f"{find_dataset(own)}: no study has a mask, and bones are measured by masks")
    growing = replace(own, volume=replace(own.volume, grow_mm=REACH_MM))
    bone_window(growing)
    scores, away, seconds = [], [], []
    for study in tqdm(studies, unit="study", leave=False, disable=None):
        found = run_level_map(run, study.uid, study.geometry.z_mm)
        values, spent = _study_scores(study, found, own)
        began = time.process_time()
        grown = grow_maps([found], np.array(study.volume), study.geometry.z_mm, growing)
        scores.append(values)
        seconds.append([spent, time.process_time() - began])
        away.append([places_away_mm(study, made) for made in (found, grown)])
    on_frame, in_map = np.median(seconds, axis=0)
    title = (
        f"{len(scores)} studies with masks; seconds of CPU a study (median): growth on the report's voxels "
        f"{on_frame:.1f}, of a map {in_map:.1f}"
    )
    if own.volume.grow_mm:
        title += f"; the run's maps are grown already, by up to {own.volume.grow_mm:g} mm, and here once more"
    return "\n\n".join([title, *_overlaps(np.stack(scores)), _places(np.stack(away))])


def places_away_mm(study: CachedStudy, found: LevelMap) -> np.ndarray:
    """(7, 4) mm by EDGES, how far a level's images lie from where the mask's edges are; NaN where either has none.

    The mask's edges are told to a mm.
    """
    grid = fine_grid(found, study.geometry.z_mm)
    away = np.full((len(LEVELS), len(EDGES)), np.nan)
    boxes = ndimage.find_objects(grid.sample_labels(study.levels), len(LEVELS))
    for level, (box, place) in enumerate(zip(boxes, find_levels(found, FOUND), strict=True)):
        if box is not None and place is not None:
            ends_mm = grid.plane_z_mm[[box[0].start, box[0].stop - 1]] + [grid.voxel_mm / 2, -grid.voxel_mm / 2]
            middle_mm = [(part.start + part.stop - grid.side) / 2 * grid.voxel_mm for part in box[1:]]
            away[level] = [place.top_mm, place.bottom_mm, *place.centre_mm] - np.array([*ends_mm, *middle_mm])
    return np.abs(away)


def process_shares(true: np.ndarray, found: np.ndarray, frame: Frame) -> np.ndarray:
    """(7,) the share of each level's process in `true` that `found` gives the same level; NaN for hardly any process.

    Both are labels (z, y, x) on the frame.
    """
    shares = np.full(len(LEVELS), np.nan)
    for level, box in enumerate(ndimage.find_objects(true, len(LEVELS)), start=1):
        if box is None:
            continue
        mine = true[box] == level
        behind_mm = (np.argwhere(mine) - thickest(mine))[:, ::-1] @ frame.affine[1, :3]
        same = found[box][mine] == level
        process = behind_mm > BEHIND_MM
        if process.sum() * frame.voxel_mm**3 >= LEAST_PROCESS_MM3:
            shares[level - 1] = same[process].mean()
    return shares


def _study_scores(study: CachedStudy, found: LevelMap, config: Config) -> tuple[np.ndarray, float]:
    """(ways, 2, 7) Dice coefficients and shares of processes, and the seconds of CPU that the growth took."""
    root = find_dataset(config)
    read = load_study(study_path(image_folder(root, "train"), study.uid))
    frame = study_frame(read, found, study.crop)
    labels, probability = found_levels(found, frame, study.crop)
    volume_hu = frame.sample(read.volume)
    began = time.process_time()
    grown = level_bones(volume_hu, labels, probability, frame.voxel_mm, growth_mm(config, found))
    spent = time.process_time() - began
    true = _on_frame(load_mask(masks_on_disk(root)[study.uid], read.geometry, read.volume.shape), frame)
    ways = labels, solid_bones(volume_hu, labels, frame.voxel_mm), grown
    return np.array([[level_dice(true, made), process_shares(true, made, frame)] for made in ways]), spent


def _on_frame(labels: np.ndarray, frame: Frame) -> np.ndarray:
    """Labels on the study's voxels (z, y, x) at the frame's: the nearest."""
    planes = np.abs(frame.geometry.z_mm[:, None] - frame.plane_z_mm).argmin(axis=0)
    rows, columns = (np.rint(frame.pixels(axis)).astype(int) for axis in (0, 1))
    return labels[np.ix_(planes, rows, columns)]


def _overlaps(scores: np.ndarray) -> list[str]:
    """Tables of scores (studies, ways, 2, 7)."""
    tables = []
    for which, words in enumerate(("Dice", f"share of what lies {BEHIND_MM:g} mm behind")):
        rows = []
        for way, name in enumerate(WAYS):
            values = scores[:, way, which]
            cells = [*_means(values), *_means(values.reshape(-1, 1))]
            rows.append([name, *(f"{value:.3f}" for value in cells)])
        tables.append(text_table([words, *LEVELS, "all"], rows))
    return tables


def _places(away: np.ndarray) -> str:
    """A table of mm (studies, maps, 7, edges)."""
    rows = []
    for edge, words in enumerate(EDGES):
        for which, name in enumerate(("by the map", "by it grown")):
            values = away[:, which, :, edge]
            cells = [*_means(values), *_means(values.reshape(-1, 1))]
            rows.append([f"{words}, {name}", *(f"{value:.1f}" for value in cells)])
    return text_table(["a level's images, mm away", *LEVELS, "all"], rows)


def _means(values: np.ndarray) -> list[float]:
    """Of each column the mean of what is known; NaN where nothing is."""
    known = ~np.isnan(values)
    return [
        float(column[there].mean()) if there.any() else np.nan for column, there in zip(values.T, known.T, strict=True)
    ]
