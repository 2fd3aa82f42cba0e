"""Every fracture head in one table: its scores out of fold with intervals, and its costs, between two oracles.

`calibrated` is the column loss as the ensemble takes the run: scale and biases fitted on the other folds.

Seconds a study are those of one fold's model from the cached study, with stage 1's levels given: what the head itself
adds to an inference.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cspine.benchmarks.oracles import oracles
from cspine.blend import nested_blend
from cspine.bootstrap import MEASURES, Interval, Predicted, intervals
from cspine.config import Config
from cspine.data.cache import bad_studies, open_study
from cspine.engine.distributed import choose_device
from cspine.errors import UserError
from cspine.held_out import load_placed_fold, out_of_fold_images, out_of_fold_presence
from cspine.metrics import weighted_log_loss
from cspine.paths import find_dataset
from cspine.runs import ENSEMBLE, OutOfFold, Run, complete_runs, find_runs, read_out_of_fold
from cspine.scores import TOLD, number, text_table
from cspine.tables import write_table
from cspine.thresholds import nested_thresholds

# With their intervals in the terminal; the file has those of all.
SHOWN_WITH_ENDS = ("column", "patient_auc", "vertebra_auc")
FILE = "heads.csv"


def heads_table(names: Sequence[str], config: Config, studies: int) -> str:
    """The table of these runs, or of all whole ones, best first; also written to `oof/heads.csv`.

    `studies` are timed of each run. Raises UserError where there is no whole fracture run.
    """
    oof = Path(config.paths.oof)
    runs = find_runs(oof, names) if names else complete_runs(oof, "fracture")
    if not runs:
        raise UserError(f"{oof}/ holds no fracture run with all folds; train some: python src/train.py --fold all")
    data = read_out_of_fold(runs, config)
    ends = oracles(data, find_dataset(config) / "fractures.csv")
    rows = [_row(name, data, predictions) for name, predictions in {**data.predictions, **ends}.items()]
    table = pd.DataFrame(rows).set_index("run")
    for run in runs:
        if run.name != ENSEMBLE:
            table.loc[run.name, "minutes"] = sum(account["seconds"] for account in run.done().values()) / 60
            table.loc[run.name, "seconds_a_study"] = seconds_a_study(run, config, data, studies)
    table = table.sort_values("column", kind="stable")
    write_table(table.reset_index().round(6), oof / FILE)
    return f"{_text(table)}\n{oof / FILE}"


def seconds_a_study(run: Run, config: Config, data: OutOfFold, studies: int) -> float:
    """The median over the first studies of fold 0, after one that compiles and allocates."""
    device = choose_device(config.train.device)
    member = load_placed_fold(run.name, 0, config, device)
    bad, presence = bad_studies(member.config), out_of_fold_presence(member.config)
    held_out = [uid for uid, fold in zip(data.uids, data.folds, strict=True) if fold == 0 and uid not in bad]
    seconds = []
    for uid in [*held_out[:1], *held_out[:studies]]:
        images = out_of_fold_images(open_study(member.config, uid), member.config, presence.get(uid))
        if images.level_map is not None:
            images.level_map()  # stage 1's work
        began = time.perf_counter()
        member.infer(images, device)
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds[1:]))


def _row(name: str, data: OutOfFold, predictions: np.ndarray) -> dict[str, object]:
    """Every measure and the ends of its interval, decided at thresholds fitted on the other folds."""
    cuts = nested_thresholds(data.labels, predictions, data.folds)
    found = intervals(data.labels, Predicted(predictions, predictions >= cuts))
    row: dict[str, object] = {"run": name}
    for measure in MEASURES:
        interval: Interval = found[measure]
        row |= {measure: interval.value, f"{measure}_low": interval.low, f"{measure}_high": interval.high}
    calibrated = nested_blend(predictions[None], data.labels, data.folds)
    row["calibrated"] = weighted_log_loss(data.labels, calibrated, "column")
    return row | {"minutes": np.nan, "seconds_a_study": np.nan}


def _text(table: pd.DataFrame) -> str:
    header = ["", *(TOLD[measure] for measure in MEASURES), "calibrated", "minutes", "s a study"]
    rows = []
    for name, row in table.iterrows():
        cells = [_with_ends(row, m) if m in SHOWN_WITH_ENDS else number(row[m], 3) for m in MEASURES]
        costs = [number(None if np.isnan(row[key]) else row[key], 2) for key in ("minutes", "seconds_a_study")]
        rows.append([str(name), *cells, number(row["calibrated"], 3), *costs])
    return text_table(header, rows)


def _with_ends(row: pd.Series, measure: str) -> str:
    return f"{row[measure]:.3f} ({row[f'{measure}_low']:.3f} to {row[f'{measure}_high']:.3f})"
