"""What `train.py` is to do: the (config, fold) jobs, in order, that a config or a pipeline and `--fold` ask for."""

from dataclasses import dataclass
from pathlib import Path

from cspine.config import Config, Pipeline, build, load, read_yaml
from cspine.errors import UsageError, UserError
from cspine.paths import find_dataset, folds_file
from cspine.tables import read_folds


@dataclass(frozen=True)
class Job:
    config: Config
    fold: int | None  # None: all the data


def plan(file: str, fold: str, overrides: list[str]) -> list[Job]:
    """The jobs in order. In a pipeline a vertebra run that a later model reads is trained on every fold (and `full`).

    Raises UsageError for a fold that is neither a number nor `all` nor `full`, UserError where there is no data.
    """
    configs = read_configs(file, overrides)
    find_dataset(configs[0])
    known = [int(k) for k in sorted(read_folds(folds_file(configs[0]))["fold"].unique())]
    asked = _folds(fold, known)
    for config in configs:
        if config.folds.count != len(known):
            raise UserError(
                f"{config.name}: folds.count={config.folds.count}, but {folds_file(config)} holds {len(known)} folds; "
                f"train with folds.count={len(known)}"
            )
    read_by_others = {name for config in configs for name in config.reads}
    whole = list(dict.fromkeys([*known, *asked]))
    return [Job(config, fold) for config in configs for fold in (whole if config.name in read_by_others else asked)]


def read_configs(file: str, overrides: list[str] | tuple[str, ...] = ()) -> list[Config]:
    """The configs of a pipeline, or the one config of a model's own file."""
    values = read_yaml(Path(file))
    if "models" not in values:
        return [load(Config, file, overrides)]
    pipeline = build(Pipeline, values, file)
    return [load(Config, Path(file).parent / model, overrides) for model in pipeline.models]


def _folds(text: str, known: list[int]) -> list[int | None]:
    if text == "all":
        return list(known)
    if text == "full":
        return [None]
    if not text.isdecimal():
        raise UsageError(f"--fold {text}: give a number from {known[0]} to {known[-1]}, all, or full")
    if int(text) not in known:
        raise UserError(f"--fold {text}: folds.csv holds the folds {known[0]} to {known[-1]}")
    return [int(text)]
