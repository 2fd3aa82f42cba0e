"""Every run of detectors in one table, and boxes from the heat of a fracture run, which is no detector."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cspine.box_runs import COLUMNS, box_scores, link_studies, read_box_scores, run_config
from cspine.config import Config
from cspine.errors import UserError
from cspine.look_heat import heat_boxes
from cspine.runs import Run, complete_runs, find_runs
from cspine.scores import number
from cspine.tables import read_csv

RATE = "images_per_second"


def localise_table(names: Sequence[str], config: Config) -> str:
    """A row a run, of those named or of all detectors: for a fracture run that of boxes about its heat.

    Studies that people annotated and those without a fracture count. Minutes are those of all folds, images/s those of
    training, the median over epochs.
    """
    oof = Path(config.paths.oof)
    runs = find_runs(oof, names) if names else complete_runs(oof, "localise")
    if not runs:
        command = "python src/train.py --config configs/localise/ssd.yaml --fold all"
        raise UserError(f"{oof}/ holds no whole run of detectors; train one: {command}")
    head = (
        f"{'':28}" + "".join(f"{title:>{len(title) + 3}}" for _, title in COLUMNS) + f"{'minutes':>10}{'images/s':>10}"
    )
    return "\n".join([head, *(_row(run, config) for run in runs)])


def _row(run: Run, config: Config) -> str:
    name = run.name if run.kind == "localise" else f"heat of {run.name}"
    scores = read_box_scores(run, config) if run.kind == "localise" else _heat_scores(run, config)
    cells = "".join(f"{number(scores[key], 3):>{len(title) + 3}}" for key, title in COLUMNS)
    minutes = sum(account["seconds"] for account in run.done().values()) / 60
    epochs = pd.concat([read_csv(file, (RATE,)) for file in sorted(run.folder.glob("fold*/metrics.csv"))])
    return f"{name:28}{cells}{minutes:10.1f}{epochs[RATE].median():10.0f}"


def _heat_scores(run: Run, config: Config) -> dict[str, Any]:
    settings = run_config(run, config)
    boxes = heat_boxes(run, config)
    return box_scores(boxes, link_studies(boxes, settings), settings)
