"""What a run leaves for people once its folds are joined: learning curves, what it cost, and how well each target does.

`oof/<run>/curves.png` and `summary.json`; of a fracture run also `scores.csv` and `scores.png`. The studies that it is
most wrong about are drawn on demand (worst.py).
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cspine.anatomy import LEVELS, OVERALL, TARGETS
from cspine.calibrate import metric_prior
from cspine.config import Config
from cspine.metrics import target_losses
from cspine.paths import read_json, write_json
from cspine.pictures.canvas import save
from cspine.pictures.curves import draw_curves, draw_scores
from cspine.runs import OutOfFold, Run, read_out_of_fold
from cspine.scores import out_of_fold_scores
from cspine.tables import read_csv, write_table
from cspine.tasks.base import run_folder

CURVES = ("epoch", "loss", "rate")
COSTS = ("hours", "peak_rss_gb", "peak_gpu_gb")


def write_story(config: Config) -> None:
    """Write the story of a run whose folds are all done and joined."""
    folder = run_folder(config)
    histories = {file.parent.name: read_csv(file, CURVES) for file in sorted(folder.glob("f*/metrics.csv"))}
    save(draw_curves(config.name, histories), folder / "curves.png")
    summary: dict[str, Any] = {"run": config.name, "task": config.task, **run_costs(folder)}
    run = Run(config.name, folder)
    if run.kind == "fracture":
        data = read_out_of_fold([run], config)
        table = target_table(config.name, data)
        write_table(table, folder / "scores.csv")
        save(draw_scores(config.name, table), folder / "scores.png")
        summary["scores"] = out_of_fold_scores(config.name, data)
    write_json(folder / "summary.json", summary)


def run_costs(folder: Path) -> dict[str, Any]:
    """Hours in all, the greatest peaks of memory, and both by fold with the fold's own score.

    null where a fold was trained before it was measured, and for the GPU on a CPU.
    """
    accounts = {file.parent.name: read_json(file) for file in sorted(folder.glob("f*/done.json"))}
    folds = {
        name: {**{cost: account.get(cost) for cost in COSTS}, "score": account["score"]}
        for name, account in accounts.items()
    }
    measured = {cost: [fold[cost] for fold in folds.values() if fold[cost] is not None] for cost in COSTS}
    hours = round(sum(measured["hours"]), 4) if len(measured["hours"]) == len(folds) else None
    peaks = {cost: max(measured[cost], default=None) for cost in COSTS[1:]}
    return {"hours": hours, **peaks, "folds": folds}


def target_table(name: str, data: OutOfFold) -> pd.DataFrame:
    """A row a target, C1..C7 and the patient: AUC (empty where only one class is present), F1 and accuracy at nested
    thresholds, the competition's loss of the target, and that of the best constant, which knows the prevalence."""
    scores = out_of_fold_scores(name, data)["targets"]
    constants = np.tile(metric_prior(data.labels.mean(axis=0)), (len(data.labels), 1))
    found, best = target_losses(data.labels, data.predictions[name]), target_losses(data.labels, constants)
    rows = [
        {"target": target, **scores[target], "loss": found[place], "constant_loss": best[place]}
        for target, place in ((target, TARGETS.index(target)) for target in (*LEVELS, OVERALL))
    ]
    return pd.DataFrame(rows).round(6)
