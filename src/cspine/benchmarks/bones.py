"""The bones of the report beside the masks, on its own voxels: what stage 1 finds, the bone in it, and that grown.

Levels are out of fold. A process is what of a mask lies far behind the middle of its body.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage
from tqdm import tqdm

from cspine.anatomy import LEVELS
from cspine.bundle import describe_run
from cspine.config import Config
from cspine.data.bones import level_bones, solid_bones
from cspine.data.cache import CachedStudy
from cspine.data.dicom import load_study
from cspine.data.layout import image_folder, masks_on_disk, study_path
from cspine.data.masks import load_mask
from cspine.errors import UserError
from cspine.held_out import placed
from cspine.level_maps import require_level_maps, run_level_map
from cspine.paths import find_dataset
from cspine.report.frame import Frame
from cspine.report.levels import thickest
from cspine.report.reader import found_levels, study_frame
from cspine.scores import text_table
from cspine.tasks.base import folds_in_use, open_studies
from cspine.voxel_scores import level_dice

BEHIND_MM = 25.0
LEAST_PROCESS_MM3 = 50.0
WAYS = ("found by stage 1", "its bone", "grown")


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
    scores, seconds = [], []
    for study in tqdm(studies, unit="study", leave=False, disable=None):
        values, spent = _study_scores(study, run, find_dataset(own))
        scores.append(values)
        seconds.append(spent)
    return _text(np.stack(scores), float(np.median(seconds)))


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


def _study_scores(study: CachedStudy, run: Path, root: Path) -> tuple[np.ndarray, float]:
    """(ways, 2, 7) Dice coefficients and shares of processes, and the seconds of CPU that the growth took."""
    read = load_study(study_path(image_folder(root, "train"), study.uid))
    found = run_level_map(run, study.uid, study.geometry.z_mm)
    frame = study_frame(read, found, study.crop)
    labels, probability = found_levels(found, frame, study.crop)
    volume_hu = frame.sample(read.volume)
    began = time.process_time()
    grown = level_bones(volume_hu, labels, probability, frame.voxel_mm)
    spent = time.process_time() - began
    true = _on_frame(load_mask(masks_on_disk(root)[study.uid], read.geometry, read.volume.shape), frame)
    ways = labels, solid_bones(volume_hu, labels, frame.voxel_mm), grown
    return np.array([[level_dice(true, made), process_shares(true, made, frame)] for made in ways]), spent


def _on_frame(labels: np.ndarray, frame: Frame) -> np.ndarray:
    """Labels on the study's voxels (z, y, x) at the frame's: the nearest."""
    planes = np.abs(frame.geometry.z_mm[:, None] - frame.plane_z_mm).argmin(axis=0)
    rows, columns = (np.rint(frame.pixels(axis)).astype(int) for axis in (0, 1))
    return labels[np.ix_(planes, rows, columns)]


def _text(scores: np.ndarray, seconds: float) -> str:
    """Tables of scores (studies, ways, 2, 7)."""
    tables = []
    for which, words in enumerate(("Dice", f"share of what lies {BEHIND_MM:g} mm behind")):
        rows = []
        for way, name in enumerate(WAYS):
            values = scores[:, way, which]
            cells = [*_means(values), *_means(values.reshape(-1, 1))]
            rows.append([name, *(f"{value:.3f}" for value in cells)])
        tables.append(text_table([words, *LEVELS, "all"], rows))
    return "\n\n".join([f"{len(scores)} studies with masks; growth {seconds:.1f} s of CPU a study (median)", *tables])


def _means(values: np.ndarray) -> list[float]:
    """Of each column the mean of what is known; NaN where nothing is."""
    known = ~np.isnan(values)
    return [
        float(column[there].mean()) if there.any() else np.nan for column, there in zip(values.T, known.T, strict=True)
    ]
