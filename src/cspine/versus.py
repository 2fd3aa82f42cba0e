"""Is one run better than another? Every measure's difference on the same patients, with its 95 % interval."""

from pathlib import Path
from typing import Any

from cspine.bootstrap import MEASURES, Interval, Predicted, differences
from cspine.config import DatasetConfig
from cspine.errors import UserError
from cspine.paths import find_dataset
from cspine.runs import find_runs, read_out_of_fold
from cspine.scores import TOLD, number
from cspine.thresholds import nested_thresholds

LOSSES = MEASURES[:3]
GROUPS = {"patient": "of patients", "vertebra": "of vertebrae"}


def compare_runs(one: str, other: str, config: DatasetConfig) -> dict[str, Any]:
    """By measure how much better `one` is than `other`, [value, low, high], positive where it is better.

    A loss is better where it is lower. Decisions are those at nested thresholds. Raises UserError for runs that are not
    whole, that predict no fractures, and for a run beside itself.
    """
    if one == other:
        raise UserError(f"--compare {one} {other}: a run is as good as itself; name two")
    find_dataset(config)  # without data nothing else is worth a message
    runs = find_runs(Path(config.paths.oof), [one, other])
    for run in runs:
        if run.kind != "fracture":
            raise UserError(f"{run.name}: only fracture runs and the ensemble can be compared patient by patient")
    data = read_out_of_fold(runs, config)
    made = [data.predictions[run.name] for run in runs]
    cuts = [nested_thresholds(data.labels, table, data.folds) for table in made]
    first, second = (Predicted(table, table >= cut) for table, cut in zip(made, cuts, strict=True))
    found = differences(data.labels, first, second)
    better = {name: _turned(interval) if name in LOSSES else interval for name, interval in found.items()}
    return {"runs": [one, other], "studies": len(data.labels), "better": {k: _json(v) for k, v in better.items()}}


def comparison_text(found: dict[str, Any]) -> str:
    """A line a measure, the better of the two named first."""
    one, other = found["runs"]
    lines = [f"{found['studies']} studies, the same for both; 95 % intervals, patients drawn again"]
    for measure, (value, low, high) in found["better"].items():
        group = GROUPS.get(measure.partition("_")[0])
        name = f"{measure} loss" if group is None else f"{TOLD[measure].split()[-1]} {group}"
        if value is None or low is None:
            lines.append(f"  {name}: not defined, a class is missing")
            continue
        ahead, behind = (one, other) if value >= 0 else (other, one)
        ends = (low, high) if value >= 0 else (-high, -low)
        chance = "" if ends[0] > 0 else ", which may be chance"
        told = f"{number(abs(value))} [{', '.join(number(end) for end in ends)}]"
        lines.append(f"  {name}: {ahead} better than {behind}: {told}{chance}")
    return "\n".join(lines)


def _turned(interval: Interval) -> Interval:
    return Interval(-interval.value, -interval.high, -interval.low)


def _json(interval: Interval) -> list[float | None]:
    return [None if value != value else float(value) for value in interval]  # JSON has no NaN
