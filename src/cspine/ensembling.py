"""From the members' out-of-fold predictions to the blend: fit it, score it by nested folds, describe it in files."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy

from cspine.anatomy import TARGETS
from cspine.blend import Blend, fit_blend, nested_blend
from cspine.calibrate import metric_prior, nested_prior, smoothed_prevalence
from cspine.config import DatasetConfig
from cspine.conformal import COVERAGE, Refer, fit_refer
from cspine.errors import UserError
from cspine.metrics import NORMALISATIONS, weighted_log_loss
from cspine.operating import CLINIC, operating_points
from cspine.paths import find_dataset, folds_file, sha256, write_json
from cspine.runs import ENSEMBLE, OutOfFold, Run, all_runs, find_runs, read_out_of_fold, require_same_data
from cspine.scores import study_scores
from cspine.tables import STUDY, write_study_table, write_table
from cspine.thresholds import best_thresholds, nested_thresholds
from cspine.way_scores import WayScore, least_valuable_first, score_ways, way_json
from cspine.ways import Comparison, compare_ways

FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """A member or the blend. `raw` and `fitted` are column losses before and after calibrating on the same rows."""

    name: str
    raw: float
    fitted: float
    nested: np.ndarray  # (n, 8), each fold predicted by what was fitted on the others
    cuts: np.ndarray  # (n, 8) nested thresholds
    scores: dict[str, Any]  # of `nested` at `cuts`


@dataclass(frozen=True)
class Options:
    """What a user chooses: the rule of the thresholds (thresholds.py), the prevalence at which PPV and NPV are told,
    and the coverage of the answers that need no radiologist (conformal.py).
    """

    rule: str = "f1"
    prevalence: float = CLINIC
    coverage: float = COVERAGE


@dataclass(frozen=True)
class Ensemble:
    """`members` and `blended` as scored, `blend` fitted on all rows, `thresholds` (8,) on all nested ones."""

    options: Options
    dataset: str
    data: OutOfFold
    blend: Blend
    ways: Comparison
    way_scores: tuple[WayScore, ...]  # the rule's first
    drop_order: tuple[str, ...]  # members, the least valuable first
    members: tuple[Entry, ...]
    blended: Entry
    thresholds: np.ndarray
    points: pd.DataFrame  # operating_points of the blend
    refer: Refer
    priors: np.ndarray  # (8,) for a study without a usable image
    oracles: dict[str, dict[str, float]]  # constant predictions that know the prevalence -> loss by normalisation
    prior: dict[str, float]  # loss by normalisation of the best constant, fitted on the other folds as members are
    inputs: dict[str, dict[str, str]]


def choose_members(oof: Path, names: Sequence[str]) -> list[Run]:
    """The fracture runs of these names, or all whole ones; says what it takes and what it passes over."""
    if names:
        chosen = find_runs(oof, names)
        for run in chosen:
            if run.name == ENSEMBLE or run.kind != "fracture":
                raise UserError(f"{run.name}: only fracture runs can be blended, neither vertebra runs nor the blend")
    else:
        lacks = {run: run.lacks() for run in all_runs(oof, "fracture")}
        for run, lack in lacks.items():
            if lack:
                print(f"passed over {run.name}: {lack}")
        chosen = [run for run, lack in lacks.items() if lack is None]
    if not chosen:
        raise UserError(f"{oof}/ holds no fracture run with all folds; train some: python src/train.py --fold all")
    require_same_data(chosen)
    print(f"members: {', '.join(run.name for run in chosen)}")
    return chosen


def fit_ensemble(runs: Sequence[Run], config: DatasetConfig, options: Options | None = None) -> Ensemble:
    """Blend runs on the folds in folds.csv. Deterministic."""
    options = options or Options()
    data = read_out_of_fold(runs, config)
    names = [run.name for run in runs]
    stack = np.stack([data.predictions[name] for name in names])
    ways = compare_ways(stack, data.labels, data.folds, names)
    raw = ways.blend.apply_uncalibrated(list(stack))
    blended = _entry("blend", raw, ways.in_sample[ways.way], ways.chosen, data)
    prevalence = data.labels.mean(axis=0)
    constants = {"q": prevalence, "2q/(1+q)": metric_prior(prevalence)}
    return Ensemble(
        options=options,
        dataset=find_dataset(config).resolve().name,
        data=data,
        blend=ways.blend,
        ways=ways,
        way_scores=tuple(score_ways(ways, data.labels)),
        drop_order=tuple(least_valuable_first(ways.blend, stack, data.labels)),
        members=tuple(_member(name, data) for name in names),
        blended=blended,
        thresholds=best_thresholds(data.labels, blended.nested, options.rule),
        points=operating_points(data.labels, blended.nested, data.folds, options.rule, options.prevalence),
        refer=fit_refer(data.labels, blended.nested, options.coverage),
        priors=metric_prior(smoothed_prevalence(data.labels)),
        oracles={name: _losses(data.labels, np.tile(q, (len(data.labels), 1))) for name, q in constants.items()},
        prior=_losses(data.labels, nested_prior(data.labels, data.folds)),
        inputs={
            **{run.name: _origin(run) for run in runs},
            "folds.csv": {"sha256": sha256(folds_file(config))},
            "train.csv": {"sha256": sha256(find_dataset(config) / "train.csv")},
        },
    )


def _origin(run: Run) -> dict[str, str]:
    return {"config_hash": run.done()[0]["config_hash"], "data": run.data(), "sha256": sha256(run.table)}


def describe(ensemble: Ensemble) -> dict[str, Any]:
    """blend.json: everything inference needs besides the members' weights, and what it was made from."""
    return {
        "format": FORMAT,
        **ensemble.blend.to_json(),
        **way_json(ensemble.ways, ensemble.way_scores),
        "least_valuable_first": list(ensemble.drop_order),
        "thresholds": dict(zip(TARGETS, ensemble.thresholds.tolist(), strict=True)),
        "threshold_rule": ensemble.options.rule,
        "refer": {"coverage": ensemble.options.coverage, **ensemble.refer.to_json()},
        "prevalence": dict(zip(TARGETS, ensemble.data.labels.mean(axis=0).tolist(), strict=True)),
        "priors": dict(zip(TARGETS, ensemble.priors.tolist(), strict=True)),
        "nested_loss": ensemble.blended.scores["loss"],
        "dataset": ensemble.dataset,
        "studies": len(ensemble.data.labels),
        "inputs": ensemble.inputs,
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__},
    }


def write_ensemble(ensemble: Ensemble, folder: Path) -> list[Path]:
    """Write oof.csv (nested predictions), thresholds.csv (every operating point) and blend.json; the files."""
    table = pd.DataFrame(ensemble.blended.nested, columns=list(TARGETS))
    table.insert(0, STUDY, ensemble.data.uids)
    table.insert(1, "fold", ensemble.data.folds)
    write_study_table(table, folder / "oof.csv")
    write_table(ensemble.points.round(6), folder / "thresholds.csv")
    write_json(folder / "blend.json", describe(ensemble))
    return [folder / "oof.csv", folder / "thresholds.csv", folder / "blend.json"]


def _member(name: str, data: OutOfFold) -> Entry:
    raw = data.predictions[name]
    fitted = fit_blend(raw[None], data.labels).apply([raw])
    return _entry(name, raw, fitted, nested_blend(raw[None], data.labels, data.folds), data)


def _entry(name: str, raw: np.ndarray, fitted: np.ndarray, nested: np.ndarray, data: OutOfFold) -> Entry:
    """Score predictions (n, 8): as they are, calibrated on the rows themselves, and by nested folds."""
    cuts = nested_thresholds(data.labels, nested, data.folds)
    return Entry(
        name=name,
        raw=weighted_log_loss(data.labels, raw, "column"),
        fitted=weighted_log_loss(data.labels, fitted, "column"),
        nested=nested,
        cuts=cuts,
        scores=study_scores(data.labels, nested, cuts),
    )


def _losses(labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    return {name: weighted_log_loss(labels, predictions, name) for name in NORMALISATIONS}
