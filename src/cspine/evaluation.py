"""What evaluate.py prints: the scores of runs, or of one file of predictions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cspine.anatomy import TARGETS
from cspine.config import DatasetConfig
from cspine.errors import UserError
from cspine.paths import find_dataset
from cspine.runs import ENSEMBLE, Run, all_runs, find_runs, read_out_of_fold
from cspine.scores import (
    out_of_fold_scores,
    read_slice_scores,
    read_thresholds,
    slice_text,
    study_scores,
    study_text,
)
from cspine.tables import match_studies, read_labels, read_predictions


def evaluate_file(labels: Path, predictions: Path, thresholds: Path | None = None) -> dict[str, Any]:
    """Scores of a file against the labels, at 0.5 or at the thresholds in a JSON file."""
    truth = read_labels(labels)
    if truth.empty:
        raise UserError(f"{labels}: holds no study")
    found = match_studies(truth, read_predictions(predictions), predictions)
    cuts = read_thresholds(thresholds) if thresholds is not None else None
    return study_scores(truth[list(TARGETS)].to_numpy(), found[list(TARGETS)].to_numpy(float), cuts)


def evaluate_runs(names: Sequence[str], config: DatasetConfig) -> tuple[dict[str, Any], dict[str, str]]:
    """Scores of these runs, or of all whole ones and the ensemble; and what the others lack."""
    find_dataset(config)  # without data nothing else is worth a message
    oof = Path(config.paths.oof)
    lacks = {} if names else {run.name: lack for run in all_runs(oof) if (lack := run.lacks())}
    runs = find_runs(oof, names) if names else [run for run in _with_ensemble(oof) if run.name not in lacks]
    if not runs:
        told = "".join(f"\n  {name}: {lack}" for name, lack in lacks.items())
        raise UserError(f"{oof}/ holds no run with all folds; train some: python src/train.py --fold all{told}")
    data = read_out_of_fold([run for run in runs if run.kind == "fracture"], config)
    scores = {
        run.name: out_of_fold_scores(run.name, data) if run.kind == "fracture" else read_slice_scores(run)
        for run in runs
    }
    return scores, lacks


def evaluation_text(scores: dict[str, Any], lacks: dict[str, str]) -> str:
    """A table a run, for a terminal, and the runs that were left out."""
    tables = [study_text(name, found) if "loss" in found else slice_text(name, found) for name, found in scores.items()]
    left_out = [f"left out {name}: {lack}" for name, lack in lacks.items()]
    return "\n\n".join([*tables, *left_out])


def _with_ensemble(oof: Path) -> list[Run]:
    ensemble = Run(ENSEMBLE, oof / ENSEMBLE)
    return [*all_runs(oof), *([ensemble] if ensemble.lacks() is None else [])]
