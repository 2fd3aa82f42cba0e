"""What a run leaves for people once its folds are joined: learning curves, what it cost, and how well each target does.

`oof/<run>/curves.png` and `summary.json`; of a fracture run also `scores.csv` and `scores.png`, of a detector's
`lesions.csv`. The studies that a fracture run is most wrong about are drawn on demand (worst.py).
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cspine.anatomy import LEVELS, OVERALL, TARGETS
from cspine.box_runs import read_box_scores, write_lesions
from cspine.calibrate import metric_prior
from cspine.config import Config
from cspine.metrics import target_losses
from cspine.paths import read_json, write_json
from cspine.pictures.canvas import save
from cspine.pictures.curves import draw_curves, draw_scores
from cspine.runs import Run, read_out_of_fold
from cspine.scores import out_of_fold_scores
from cspine.tables import read_csv, write_table
from cspine.tasks.base import run_folder

CURVES = ("epoch", "loss", "rate")
PEAKS = ("peak_rss_gb", "peak_gpu_gb")


def write_story(config: Config) -> None:
    """Write the story of a run whose folds are all done and joined."""
    folder = run_folder(config)
    histories = {file.parent.name: read_csv(file, CURVES) for file in sorted(folder.glob("f*/metrics.csv"))}
    save(draw_curves(config.name, histories), folder / "curves.png")
    summary: dict[str, Any] = {"run": config.name, "task": config.task, **run_costs(folder)}
    run = Run(config.name, folder)
    if run.kind == "localise":
        write_lesions(config)
        summary["scores"] = read_box_scores(run, config)
    if run.kind == "fracture":
        data = read_out_of_fold([run], config)
        summary["scores"] = out_of_fold_scores(config.name, data)
        table = target_table(summary["scores"]["targets"], data.labels, data.predictions[config.name])
        write_table(table, folder / "scores.csv")
        save(draw_scores(config.name, table), folder / "scores.png")
    write_json(folder / "summary.json", summary)


def run_costs(folder: Path) -> dict[str, Any]:
    """Hours in all, the greatest peaks of memory, and both by fold with the fold's own score.

    The peak of the GPU is null on a CPU, and both are where no fold was trained since they are measured.
    """
    accounts = {file.parent.name: read_json(file) for file in sorted(folder.glob("f*/done.json"))}
    folds = {
        name: {
            "hours": round(account["seconds"] / 3600, 4),
            **{peak: account.get(peak) for peak in PEAKS},
            "score": account["score"],
        }
        for name, account in accounts.items()
    }
    hours = round(sum(account["seconds"] for account in accounts.values()) / 3600, 4)
    known = {peak: [fold[peak] for fold in folds.values() if fold[peak] is not None] for peak in PEAKS}
    return {"hours": hours, **{peak: max(values, default=None) for peak, values in known.items()}, "folds": folds}


def target_table(scores: dict[str, Any], labels: np.ndarray, predictions: np.ndarray) -> pd.DataFrame:
    """A row a target, C1..C7 and the patient: its `scores`, the competition's loss of it and of the best constant.

    The constant knows the prevalence. An AUC is empty where only one class is present.
    """
    constants = np.tile(metric_prior(labels.mean(axis=0)), (len(labels), 1))
    found, best = target_losses(labels, predictions), target_losses(labels, constants)
    rows = [
        {"target": target, **scores[target], "loss": found[place], "constant_loss": best[place]}
        for target, place in ((target, TARGETS.index(target)) for target in (*LEVELS, OVERALL))
    ]
    return pd.DataFrame(rows).round(6)
