"""The scores of a table of predictions, as one object for --json and as text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cspine.anatomy import LEVELS, OVERALL, TARGETS
from cspine.errors import UserError, nearest
from cspine.level_scores import level_errors, level_scores
from cspine.metrics import NORMALISATIONS, accuracy, auc, f1, weighted_log_loss
from cspine.paths import read_json
from cspine.runs import OutOfFold, Run
from cspine.tables import RAW, SEEN, TRUTH, read_slices, require_columns
from cspine.thresholds import nested_thresholds
from cspine.voxel_scores import VOXEL_SCORES

# Measures of bootstrap.py as a terminal shows them.
TOLD = {
    "column": "column",
    "row": "row",
    "global": "global",
    "patient_auc": "patients AUC",
    "patient_accuracy": "accuracy",
    "patient_f1": "F1",
    "vertebra_auc": "vertebrae mean AUC",
    "vertebra_accuracy": "accuracy",
    "vertebra_f1": "F1",
}
# Errors of the levels' extents as a terminal shows them: heading, key, digits.
LEVEL_COLUMNS = {
    "top mm": ("top_mm", 1),
    "bottom mm": ("bottom_mm", 1),
    "centre mm": ("centre_mm", 1),
    "within 5 mm": ("within_5_mm", 3),
    "within 20 mm": ("within_20_mm", 3),
}


def study_scores(labels: np.ndarray, predictions: np.ndarray, thresholds: np.ndarray | None = None) -> dict[str, Any]:
    """Scores of predictions (n, 8) as a JSON object.

    `thresholds` is (8,), or (n, 8) where they differ by fold (the object then holds their means), or None for 0.5.
    A target is found where p >= threshold. An AUC is null where only one class is present.
    """
    cuts = np.broadcast_to(0.5 if thresholds is None else thresholds, predictions.shape)
    found = predictions >= cuts
    targets = {
        target: {
            "auc": auc(labels[:, column], predictions[:, column]),
            "f1": f1(labels[:, column], found[:, column]),
            "accuracy": accuracy(labels[:, column], found[:, column]),
            "threshold": float(cuts[:, column].mean()),
            "positives": int(labels[:, column].sum()),
        }
        for column, target in enumerate(TARGETS)
    }
    return {
        "loss": {name: weighted_log_loss(labels, predictions, name) for name in NORMALISATIONS},
        "targets": {target: targets[target] for target in (*LEVELS, OVERALL)},
        "vertebra_level": {"accuracy": accuracy(labels[:, 1:], found[:, 1:]), "f1": f1(labels[:, 1:], found[:, 1:])},
        "patient_level": {"accuracy": accuracy(labels[:, 0], found[:, 0]), "f1": f1(labels[:, 0], found[:, 0])},
        "studies": len(labels),
    }


def out_of_fold_scores(name: str, data: OutOfFold) -> dict[str, Any]:
    """Scores of a fracture run, each fold decided at thresholds fitted on the other folds."""
    predictions = data.predictions[name]
    return study_scores(data.labels, predictions, nested_thresholds(data.labels, predictions, data.folds))


def slice_scores(table: pd.DataFrame) -> dict[str, Any]:
    """Scores of a vertebra run's slice table at 0.5, over the slices with a mask that a fold did not train on.

    accuracy: the mean over slices and levels of "presence right"; exact_match: all seven levels of a slice right;
    levels: errors in mm of the extents, those of the best path where there is one; raw: the same without the order of
    the levels.
    """
    scores = _slice_scores(table)
    if all(column in table for column in (*RAW, *SEEN)):
        scores["levels"] = level_scores(level_errors(_known(table), SEEN))
        scores["raw"] = _slice_scores(
            table.assign(**{level: table[raw] for level, raw in zip(LEVELS, RAW, strict=True)})
        )
    return scores


def _slice_scores(table: pd.DataFrame) -> dict[str, Any]:
    known = _known(table)
    if known.empty:
        raise UserError("no study of the slice table has a mask, so there is nothing to score it by")
    truth = known[list(TRUTH)].to_numpy(float) > 0.5
    found = known[list(LEVELS)].to_numpy(float) > 0.5
    return {
        "accuracy": accuracy(truth, found),
        "exact_match": float((truth == found).all(axis=1).mean()),
        "f1": {level: f1(truth[:, column], found[:, column]) for column, level in enumerate(LEVELS)},
        "slices": len(known),
        "studies": int(known.iloc[:, 0].nunique()),
        "levels": level_scores(level_errors(known)),
    }


def _known(table: pd.DataFrame) -> pd.DataFrame:
    return table[(table["source"] == "oof") & table[TRUTH[0]].notna()]


def read_slice_scores(run: Run) -> dict[str, Any]:
    table = read_slices(run.table)
    require_columns(table, ("source", *TRUTH), str(run.table))
    voxels = _voxel_scores(run)
    return slice_scores(table) | ({"voxels": voxels} if voxels else {})


def _voxel_scores(run: Run) -> dict[str, float]:
    """Of a run that maps levels what voxel_scores.py says of them, as the mean over its folds; else empty."""
    found = [account["score"] for account in run.done().values()]
    names = [name for name in VOXEL_SCORES if all(name in scores for scores in found)]
    return {name: float(np.mean([scores[name] for scores in found])) for name in names}


def read_thresholds(file: Path) -> np.ndarray:
    """The thresholds (8,) in a JSON file, such as blend.json, under the key `thresholds`."""
    if not file.is_file():
        raise UserError(f"{file} is missing; make one with: python src/ensemble.py")
    values = read_json(file)
    found = values.get("thresholds") if isinstance(values, dict) else None
    if not isinstance(found, dict):
        raise UserError(f"{file}: the key 'thresholds' is missing, or no mapping of targets to numbers")
    for target in TARGETS:
        if target not in found:
            raise UserError(f"{file}: thresholds.{target} is missing; {nearest(target, found)}")
        if isinstance(found[target], bool) or not isinstance(found[target], int | float):
            raise UserError(f"{file}: thresholds.{target} must be a number, not {found[target]!r}")
    return np.array([found[target] for target in TARGETS], float)


def study_text(name: str, scores: dict[str, Any]) -> str:
    """The scores of one table of study predictions, for a terminal."""
    loss = ", ".join(f"{name} {scores['loss'][name]:.5f}" for name in ("column", "row", "global"))
    rows = [
        [target, *(number(row[key]) for key in ("auc", "f1", "accuracy", "threshold")), str(row["positives"])]
        for target, row in scores["targets"].items()
    ]
    vertebra, patient = scores["vertebra_level"], scores["patient_level"]
    return "\n".join(
        [
            f"{name}: {scores['studies']} studies; loss: {loss}",
            text_table(["", "AUC", "F1", "accuracy", "threshold", "positives"], rows),
            f"  vertebrae: accuracy {vertebra['accuracy']:.4f}, F1 {vertebra['f1']:.4f}; "
            f"patients: accuracy {patient['accuracy']:.4f}, F1 {patient['f1']:.4f}",
            *_interval_lines(scores),
        ]
    )


def _interval_lines(scores: dict[str, Any]) -> list[str]:
    """The 95 % intervals, and how far the run is behind the best one, where the scores hold them."""
    lines = []
    if ends := scores.get("intervals"):
        told = [f"{title} {number(ends[name][0])} to {number(ends[name][1])}" for name, title in TOLD.items()]
        lines += [f"  95 % intervals: {', '.join(told[:3])};", f"    {', '.join(told[3:6])}; {', '.join(told[6:])}"]
    if behind := scores.get("behind"):
        value, low, high = behind["column"]
        surely = "" if low > 0 else ", which may be chance"
        lines.append(
            f"  column loss {number(value)} ({number(low)} to {number(high)}) above that of {behind['run']}{surely}"
        )
    return lines


def slice_text(name: str, scores: dict[str, Any]) -> str:
    """The scores of a vertebra run, for a terminal."""
    lines = [f"{name}: {scores['slices']} slices of {scores['studies']} studies"]
    ways = {"in order": scores, "raw": scores["raw"]} if "raw" in scores else {"": scores}
    rows = []
    for way, found in ways.items():
        levels = found["levels"]
        extents = [number(levels.get(key), digits) for key, digits in LEVEL_COLUMNS.values()]
        rows.append([way, number(found["accuracy"]), number(found["exact_match"]), *extents])
    lines.append(text_table(["", "accuracy", "all 7 right", *LEVEL_COLUMNS], rows))
    rows = [[f"F1 {way}".rstrip(), *(number(value) for value in found["f1"].values())] for way, found in ways.items()]
    lines.append(text_table(["", *LEVELS], rows))
    if voxels := scores.get("voxels"):
        lines.append(
            f"  voxels: Dice {voxels['dice']:.4f}; a learned mask keeps {100 * voxels['mask_keeps']:.2f} % of the "
            f"vertebrae and {100 * voxels['mask_leaves']:.1f} % of all pixels"
        )
    return "\n".join(lines)


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], indent: str = "  ") -> str:
    """Rows of text as aligned columns, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for row in (header, *rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append((indent + "  ".join(cells)).rstrip())
    return "\n".join(lines)


def number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
