"""From slices to levels in several ways: the same out-of-fold slices of a run, joined by each, so that they compare.

The method's mean, weighted by the levels' presence, beside the mean of the clearest slices and the clearest alone
(aggregate.py). Learned weights are those of fracture/recurrent and of model.sequence.pooling=attention.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from cspine.anatomy import TARGETS
from cspine.blend import nested_blend
from cspine.config import Config
from cspine.data.cache import bad_studies, open_study
from cspine.engine.distributed import choose_device
from cspine.errors import UserError
from cspine.held_out import load_placed_fold, out_of_fold_images, out_of_fold_presence
from cspine.metrics import auc, weighted_log_loss
from cspine.runs import ENSEMBLE, OutOfFold, find_runs, read_out_of_fold
from cspine.scores import number, text_table
from cspine.tasks import fracture_slice
from cspine.tasks.base import find_task
from cspine.tasks.head import mean_priors

# By name, `aggregate.clearest_mm`.
WAYS: dict[str, float | None] = {
    "mean, by presence": None,
    "clearest 20 mm": 20.0,
    "clearest 10 mm": 10.0,
    "clearest 5 mm": 5.0,
    "clearest 2 mm": 2.0,
    "greatest": 0.0,
}


def aggregations_table(names: Sequence[str], config: Config) -> str:
    """Of each run and way: the loss as it is and calibrated on the other folds, and the AUC of patients and vertebrae.

    Raises UserError for a run that does not judge slices, and for none.
    """
    if not names:
        raise UserError("aggregations: name fracture runs that judge slices: --runs fracture-slice")
    runs = find_runs(Path(config.paths.oof), names)
    for run in runs:
        if run.name == ENSEMBLE or not _joins_slices(find_task(run.config["task"])):
            raise UserError(f"aggregations: {run.name} does not judge slices; name a run of a slice head")
    data, lines = read_out_of_fold(runs, config), []
    for run in runs:
        rows = [[way, *_cells(data, told)] for way, told in aggregated(run.name, data, config).items()]
        lines.append(text_table([run.name, "column", "calibrated", "patients AUC", "vertebrae AUC"], rows))
    return "\n\n".join(lines)


def aggregated(name: str, data: OutOfFold, config: Config) -> dict[str, np.ndarray]:
    """Way -> predictions (n, 8), each study by the fold that held it out."""
    device = choose_device(config.train.device)
    told = {way: np.empty(data.labels.shape) for way in WAYS}
    for fold in np.unique(data.folds):
        member = load_placed_fold(name, int(fold), config, device)
        task, presence, bad = find_task(member.config.task), out_of_fold_presence(member.config), bad_studies(config)
        assert issubclass(task, fracture_slice.Task)
        priors = mean_priors(member.facts)
        for row in tqdm(
            np.flatnonzero(data.folds == fold), desc=f"{name} fold {fold}", unit="study", leave=False, disable=None
        ):
            uid, fractured = data.uids[row], np.zeros(0)
            if uid not in bad:
                study = open_study(member.config, uid)
                images = out_of_fold_images(study, member.config, presence.get(uid))
                fractured, seen = task.judge_slices(member.models, member.config, images, device)
            for way, clearest_mm in WAYS.items():
                told[way][row] = (
                    fracture_slice.study_row(fractured, seen, images.spacing_mm, priors, clearest_mm)
                    if len(fractured)
                    else [priors[target] for target in TARGETS]
                )
    return told


def _joins_slices(task: type) -> bool:
    """Whether its studies are the slices joined: not of fracture/recurrent, which has a network for that."""
    return issubclass(task, fracture_slice.Task) and task.predictions is fracture_slice.Task.predictions


def _cells(data: OutOfFold, told: np.ndarray) -> list[str]:
    calibrated = nested_blend(told[None], data.labels, data.folds)
    levels = [auc(data.labels[:, column], told[:, column]) for column in range(1, len(TARGETS))]
    known = [value for value in levels if value is not None]
    losses = [weighted_log_loss(data.labels, table, "column") for table in (told, calibrated)]
    return [number(value) for value in (*losses, auc(data.labels[:, 0], told[:, 0]), float(np.mean(known)))]
