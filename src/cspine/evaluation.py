"""What evaluate.py prints: the scores of runs, each with its 95 % interval, or of one file of predictions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cspine.anatomy import TARGETS
from cspine.bootstrap import Interval, Predicted, differences, intervals
from cspine.box_runs import box_text, read_box_scores
from cspine.config import DatasetConfig
from cspine.errors import UserError
from cspine.paths import find_dataset
from cspine.runs import ENSEMBLE, OutOfFold, Run, all_runs, find_runs, read_out_of_fold
from cspine.scores import (
    read_slice_scores,
    read_thresholds,
    slice_text,
    study_scores,
    study_text,
)
from cspine.tables import match_studies, read_labels, read_predictions
from cspine.thresholds import nested_thresholds


def evaluate_file(labels: Path, predictions: Path, thresholds: Path | None = None) -> dict[str, Any]:
    """Scores of a file against the labels, at 0.5 or at the thresholds in a JSON file."""
    truth = read_labels(labels)
    if truth.empty:
        raise UserError(f"{labels}: holds no study")
    found = match_studies(truth, read_predictions(predictions), predictions)
    cuts = read_thresholds(thresholds) if thresholds is not None else None
    true, probabilities = truth[list(TARGETS)].to_numpy(), found[list(TARGETS)].to_numpy(float)
    decided = Predicted(probabilities, probabilities >= (0.5 if cuts is None else cuts))
    return study_scores(true, probabilities, cuts) | {"intervals": _ends(intervals(true, decided))}


def evaluate_runs(names: Sequence[str], config: DatasetConfig) -> tuple[dict[str, Any], dict[str, str]]:
    """Scores of these runs, or of all whole ones and the ensemble; and what the others lack.

    A fracture run that is not the best of those named is also held against the best (`behind`), patient by patient.
    """
    find_dataset(config)  # without data nothing else is worth a message
    oof = Path(config.paths.oof)
    lacks = {} if names else {run.name: lack for run in all_runs(oof) if (lack := run.lacks())}
    runs = find_runs(oof, names) if names else [run for run in _with_ensemble(oof) if run.name not in lacks]
    if not runs:
        told = "".join(f"\n  {name}: {lack}" for name, lack in lacks.items())
        raise UserError(f"{oof}/ holds no run with all folds; train some: python src/train.py --fold all{told}")
    data = read_out_of_fold([run for run in runs if run.kind == "fracture"], config)
    fractures = _fracture_scores(data)
    return {run.name: fractures.get(run.name) or _other_scores(run, config) for run in runs}, lacks


def _other_scores(run: Run, config: DatasetConfig) -> dict[str, Any]:
    return read_box_scores(run, config) if run.kind == "localise" else read_slice_scores(run)


def _fracture_scores(data: OutOfFold) -> dict[str, dict[str, Any]]:
    """Of each run, decided fold by fold at thresholds fitted on the other folds."""
    scores, decided = {}, {}
    for name, predictions in data.predictions.items():
        cuts = nested_thresholds(data.labels, predictions, data.folds)
        decided[name] = Predicted(predictions, predictions >= cuts)
        ends = _ends(intervals(data.labels, decided[name]))
        scores[name] = study_scores(data.labels, predictions, cuts) | {"intervals": ends}
    best = min(scores, key=lambda name: scores[name]["loss"]["column"], default="")
    for name in scores.keys() - {best}:
        found = differences(data.labels, decided[name], decided[best])
        scores[name]["behind"] = {"run": best, **{key: _finite(list(values)) for key, values in found.items()}}
    return scores


def _ends(found: dict[str, Interval]) -> dict[str, list[float | None]]:
    return {measure: _finite([interval.low, interval.high]) for measure, interval in found.items()}


def _finite(values: Sequence[float]) -> list[float | None]:
    """JSON has no NaN."""
    return [float(value) if np.isfinite(value) else None for value in values]


def evaluation_text(scores: dict[str, Any], lacks: dict[str, str]) -> str:
    """A table a run, for a terminal, and the runs that were left out."""
    tables = [_table(name, found) for name, found in scores.items()]
    left_out = [f"left out {name}: {lack}" for name, lack in lacks.items()]
    return "\n\n".join([*tables, *left_out])


def _table(name: str, found: dict[str, Any]) -> str:
    if "loss" in found:
        return study_text(name, found)
    return box_text(name, found) if "froc" in found else slice_text(name, found)


def _with_ensemble(oof: Path) -> list[Run]:
    ensemble = Run(ENSEMBLE, oof / ENSEMBLE)
    return [*all_runs(oof), *([ensemble] if ensemble.lacks() is None else [])]
