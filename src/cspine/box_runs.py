"""What a run of detectors makes of its boxes: `lesions.csv`, and how well both fit what people drew."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cspine.anatomy import LEVELS, TARGETS
from cspine.config import Config, DatasetConfig, build
from cspine.data.cache import CachedStudy
from cspine.data.layout import box_file
from cspine.held_out import placed
from cspine.lesions import LESION_COLUMNS, find_lesions, levels_by_map, levels_by_presence
from cspine.level_maps import map_files, run_level_map
from cspine.localisation import average_precision, froc, lesion_scores, mean_iou
from cspine.paths import find_dataset
from cspine.runs import Run
from cspine.tables import FOUND_BOXES, STUDY, read_boxes, read_csv, read_found_boxes, read_labels, write_table
from cspine.tasks.base import folds_in_use, open_studies, run_folder
from cspine.tasks.fracture_slice import read_presence

LESIONS = "lesions.csv"
OVERLAPS = (0.3, 0.5)
COLUMNS = (
    ("mean_iou", "IoU"),
    ("slices_found", "slices found"),
    *((f"ap_{overlap:g}", f"AP {overlap:g}") for overlap in OVERLAPS),
    ("sensitivity_at_1", "sensitivity at 1 false"),
    ("froc", "FROC"),
    ("distance_mm", "distance, mm"),
    ("right_level", "right level"),
)


def write_lesions(config: Config) -> pd.DataFrame:
    """Join the run's boxes to lesions and write them beside its `boxes.csv`."""
    boxes = read_found_boxes(run_folder(config) / "boxes.csv")
    lesions = link_studies(boxes, config)
    write_table(lesions.round(6), run_folder(config) / LESIONS)
    return lesions


def link_studies(boxes: pd.DataFrame, config: Config) -> pd.DataFrame:
    """The lesions of all studies that have boxes; their levels by stage 1's maps, or its slices where it makes none."""
    presence = read_presence(config)
    rows = dict(list(boxes.groupby(STUDY)))
    studies = [study for study in open_studies(config, folds_in_use(config)) if study.uid in rows]
    tables = [
        find_lesions(
            study.uid, rows[study.uid], study.geometry, _levels(rows[study.uid], study, presence[study.uid], config)
        )
        for study in studies
    ]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(LESION_COLUMNS))


def run_config(run: Run, config: DatasetConfig) -> Config:
    """The run's own config at the folders of `config`."""
    return placed(build(Config, run.config, f"{run.folder}/fold*/config.json"), config)


def read_box_scores(run: Run, config: DatasetConfig) -> dict[str, Any]:
    """`box_scores` of what a run left."""
    return box_scores(read_found_boxes(run.folder / "boxes.csv"), read_lesions(run), run_config(run, config))


def read_lesions(run: Run) -> pd.DataFrame:
    """What `write_lesions` left of a run."""
    lesions = read_csv(run.folder / LESIONS, LESION_COLUMNS, "make it with: python src/train.py (the run's config)")
    return lesions.fillna({"level": ""})


def box_scores(boxes: pd.DataFrame, lesions: pd.DataFrame, config: Config) -> dict[str, Any]:
    """Of boxes and lesions found, over the studies that people annotated and those without a fracture.

    A box that is missing on a fractured study without any annotation proves nothing, so those studies do not count.
    """
    true = true_boxes(config)
    labels = read_labels(find_dataset(config) / "train.csv").set_index(STUDY)
    known = set(true[STUDY]) | set(labels.index[labels[TARGETS[0]] == 0])
    known &= set(folds_in_use(config)[STUDY])
    boxes, true = boxes[boxes[STUDY].isin(known)], true[true[STUDY].isin(known)]
    lesions = lesions[lesions[STUDY].isin(known)]
    truth = true_lesions(true, labels, config)
    slices, curve, told = mean_iou(boxes, true), froc(lesions, truth, len(known)), lesion_scores(lesions, truth)
    return {
        "studies": len(known),
        "lesions": len(truth),
        "mean_iou": slices.mean,
        "slices_found": slices.matched / slices.annotated,
        **{f"ap_{overlap:g}": average_precision(boxes, true, overlap) for overlap in OVERLAPS},
        "sensitivity_at_1": curve.at(1),
        "froc": curve.score,
        "distance_mm": told.distance_mm,
        "right_level": told.right_level,
    }


def box_text(name: str, scores: dict[str, Any]) -> str:
    """A table for a terminal."""
    lines = [f"{name}: {scores['lesions']} lesions that people drew, {scores['studies']} studies"]
    for key, title in COLUMNS:
        value = scores[key]
        lines.append(f"  {title:24}{'-' if value is None else format(value, '.3f'):>8}")
    return "\n".join(lines)


def true_boxes(config: Config) -> pd.DataFrame:
    """What people drew, in the columns of boxes found."""
    table = read_boxes(box_file(find_dataset(config))).rename(columns={"slice_number": "file_number"})
    return table.assign(score=1.0, level="")[list(FOUND_BOXES)]


def true_lesions(boxes: pd.DataFrame, labels: pd.DataFrame, config: Config) -> pd.DataFrame:
    """The lesions of what people drew; each of the fractured level of the study that stage 1 sees there, or of none."""
    lesions = link_studies(boxes, config)
    fractured = labels.loc[lesions[STUDY], list(LEVELS)].to_numpy() > 0
    places = [LEVELS.index(level) if level in LEVELS else -1 for level in lesions["level"]]
    right = [place >= 0 and bool(row[place]) for place, row in zip(places, fractured, strict=True)]
    return lesions.assign(level=np.where(np.array(right, bool), lesions["level"], ""))


def _levels(boxes: pd.DataFrame, study: CachedStudy, presence: np.ndarray, config: Config) -> np.ndarray:
    run = Path(config.paths.oof) / str(config.stage1)
    if not map_files(run, study.uid):
        return levels_by_presence(boxes, study.geometry, presence)
    return levels_by_map(boxes, study.geometry, run_level_map(run, study.uid, study.geometry.z_mm), study.crop)
