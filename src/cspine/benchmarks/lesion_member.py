"""What localisation gives back: the ensemble of the fracture heads, and with a run's best lesion scores beside them.

Everything is nested: each fold is scored by a blend fitted on the others.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from cspine.anatomy import LEVELS, TARGETS
from cspine.bootstrap import Interval, Predicted, differences, intervals
from cspine.box_runs import link_studies, read_lesions, run_config
from cspine.config import Config
from cspine.errors import UserError
from cspine.look_heat import heat_boxes
from cspine.runs import Run, complete_runs, find_runs, read_out_of_fold
from cspine.scores import number, text_table
from cspine.tables import STUDY
from cspine.thresholds import nested_thresholds
from cspine.ways import compare_ways

SHOWN = ("column", "patient_auc", "vertebra_auc")


def lesion_member_table(names: Sequence[str], config: Config) -> str:
    """A row for the blend of all whole fracture runs, and one with each run that finds lesions as a member more.

    Those are the runs named, or all detectors; of a fracture run named its lesions are those of its heat. Raises
    UserError where there is no fracture run, or none with lesions.
    """
    oof = Path(config.paths.oof)
    heads = complete_runs(oof, "fracture")
    finders = find_runs(oof, names) if names else complete_runs(oof, "localise")
    if not heads or not finders:
        kind, file = ("fracture heads", "fracture/slice") if not heads else ("detectors", "localise/ssd")
        command = f"python src/train.py --config configs/{file}.yaml --fold all"
        raise UserError(f"{oof}/ holds no whole run of {kind}; train one: {command}")
    data = read_out_of_fold(heads, config)
    members = [data.predictions[run.name] for run in heads]

    def blended(*more: np.ndarray) -> Predicted:
        stack = np.stack([*members, *more])
        chosen = compare_ways(stack, data.labels, data.folds, [str(place) for place in range(len(stack))]).chosen
        return Predicted(chosen, chosen >= nested_thresholds(data.labels, chosen, data.folds))

    alone = blended()
    rows = [[f"{len(heads)} heads", *_cells(intervals(data.labels, alone))]]
    for run in tqdm(finders, desc="blends", leave=False, disable=None):
        with_it = blended(best_scores(_lesions(run, config), data.uids, run_config(run, config).localise.least_score))
        rows.append([f"and {run.name}", *_cells(intervals(data.labels, with_it))])
        rows.append(["  more than without it", *_cells(differences(data.labels, with_it, alone))])
    return text_table(["", *SHOWN], rows)


def best_scores(lesions: pd.DataFrame, uids: Sequence[str], least: float) -> np.ndarray:
    """(n, 8): of each level the greatest score of its lesions, of the patient that of all; `least` where none is."""
    rows = {uid: row for row, uid in enumerate(uids)}
    found = np.full((len(rows), len(TARGETS)), least)
    for uid, level, score in lesions[[STUDY, "level", "score"]].itertuples(index=False):
        if uid not in rows:
            continue
        columns = [0, 1 + LEVELS.index(level)] if level in LEVELS else [0]
        found[rows[uid], columns] = np.maximum(found[rows[uid], columns], score)
    return found


def _lesions(run: Run, config: Config) -> pd.DataFrame:
    if run.kind == "localise":
        return read_lesions(run)
    return link_studies(heat_boxes(run, config), run_config(run, config))


def _cells(found: dict[str, Interval]) -> list[str]:
    shown = [found[measure] for measure in SHOWN]
    return [f"{number(value)} ({number(low)} to {number(high)})" for value, low, high in shown]
