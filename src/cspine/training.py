"""One (config, fold) from start to finish: train, predict what was held out, write the folder, join the folds."""

import multiprocessing
import platform
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from torch import nn

from cspine.config import Config, build, config_hash, differences, hashed_part, to_dict
from cspine.data.fingerprint import fingerprint_file, read_fingerprint
from cspine.engine.distributed import World, join_world
from cspine.engine.loop import fit, predict
from cspine.engine.peaks import begin_peaks, peaks_gb
from cspine.errors import UserError
from cspine.level_maps import map_file, read_level_map, write_level_map
from cspine.paths import atomic, folds_file, read_json, sha256, write_json
from cspine.pipeline import Job
from cspine.story import write_story
from cspine.tables import read_csv, read_folds, write_table
from cspine.tasks.base import Completes, MapsLevels, StudyImages, Task, find_task, fold_folder, run_folder
from cspine.voxel_scores import map_scores


def train_jobs(jobs: list[Job], processes: int = 1, resume: bool = False, restart: bool = False) -> None:
    """Train the jobs in order; with several processes side by side, but for runs that read one another."""
    settings = jobs[0].config
    if processes == 1:
        with join_world(settings.train.device, settings.data.workers) as world:
            if restart and world.is_main:
                _clear(jobs)
            world.barrier()
            for job in jobs:
                train_fold(job.config, job.fold, world, resume)
        return
    if restart:
        _clear(jobs)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context) as pool:
        for group in side_by_side(jobs):
            for future in [pool.submit(_train_alone, job, processes, resume) for job in group]:
                future.result()


def side_by_side(jobs: list[Job]) -> list[list[Job]]:
    """The jobs in order, in groups none of which needs a run that it trains itself."""
    groups: list[list[Job]] = [[]]
    for job in jobs:
        if not {other.config.name for other in groups[-1]}.isdisjoint(job.config.follows):
            groups.append([])
        groups[-1].append(job)
    return groups


def _clear(jobs: list[Job]) -> None:
    """Delete what all the folds hold, before any is trained: a run of old folds and new ones cannot be joined."""
    for job in jobs:
        shutil.rmtree(fold_folder(job.config, job.fold), ignore_errors=True)


def _train_alone(job: Job, processes: int, resume: bool) -> None:
    others = job.config.data.workers + (processes - 1) * (1 + job.config.data.workers)
    # Bars of several processes would overwrite each other; the lines at each epoch's end remain.
    with join_world(job.config.train.device, others, bars=False) as world:
        train_fold(job.config, job.fold, world, resume)


def train_fold(config: Config, fold: int | None, world: World, resume: bool = False) -> None:
    """Train a fold (None: all data) unless it is done already, and join the run's table when all folds are done.

    Raises UserError where the folder holds a run of another config, or an interrupted one without `resume`.
    """
    folder = fold_folder(config, fold)
    if _is_done(config, folder, resume):
        _say(world, f"{folder}: done already")
    else:
        _train(config, fold, folder, world, resume)
    if world.is_main:
        join_folds(config)
    world.barrier()


def join_folds(config: Config) -> bool:
    """Write the run's table and its story (story.py) once every fold of folds.csv is done; says whether it could.

    What the model of all data predicts (studies that nobody holds out, in a vertebra run) is part of it if that is
    trained. Raises UserError where the folds were trained with different configs or on different data.
    """
    task = find_task(config.task)
    folds = sorted(read_folds(folds_file(config))["fold"].unique())
    folders = [fold_folder(config, int(fold)) for fold in folds]
    if not all((folder / "done.json").exists() for folder in folders):
        return False
    full = fold_folder(config, None)
    if (full / "done.json").exists():
        folders.append(full)
    _require_alike(folders)
    # A fracture head trained on all data holds nothing out and so predicts nothing.
    folders = [folder for folder in folders if folder != full or (full / _predictions_name(task)).exists()]
    write_table(
        task.join([_read_predictions(folder, task) for folder in folders]),
        run_folder(config) / task.run_table,
    )
    write_story(config)
    return True


def _require_alike(folders: list[Path]) -> None:
    first, *others = [(read_json(folder / "done.json")["config_hash"], _data_hash(folder)) for folder in folders]
    for folder, other in zip(folders[1:], others, strict=True):
        if other != first:
            what = "with another config" if other[0] != first[0] else "on other data"
            raise UserError(f"{folder} was trained {what} than {folders[0]}; train them alike, with --restart")


def _train(config: Config, fold: int | None, folder: Path, world: World, resume: bool) -> None:
    before, began = _seconds_before(folder) if resume else 0.0, time.perf_counter()
    begin_peaks(world.device)
    if world.is_main:
        data = read_fingerprint(config)
        folder.mkdir(parents=True, exist_ok=True)
        # The config goes last: a folder that has one is a run, and is held to its data.
        write_json(folder / "data.json", data)
        write_json(folder / "config.json", to_dict(config))
    world.barrier()
    task = find_task(config.task)(config, fold)
    model = fit(task, config, folder, world, resume)
    if isinstance(task, Completes):
        task.complete(model, world)
    nothing_left = fold is None and not len(task.prediction_samples())
    score = {} if nothing_left else _predict(task, model, config, folder, world)
    if world.is_main:
        with atomic(folder / "weights.safetensors") as temporary:
            save_file({key: value.contiguous() for key, value in model.state_dict().items()}, temporary)
        seconds = before + time.perf_counter() - began
        write_json(folder / "done.json", _account(config, folder, task, score, seconds, world))
        (folder / "last.ckpt").unlink()
    told = ", ".join(f"{key} {value:.4f}" for key, value in score.items())
    _say(world, f"{folder}: done in {time.perf_counter() - began:.0f} s. {told}")


def _predict(task: Task, model: nn.Module, config: Config, folder: Path, world: World) -> dict[str, float]:
    samples = task.prediction_samples()
    table = task.predictions(predict(model, samples, config, world))
    if world.is_main:
        write_table(table, folder / _predictions_name(task))
    if not isinstance(task, MapsLevels):
        return task.score(table)
    _map_levels(task, model, config, folder, world)
    maps = ((study, read_level_map(map_file(folder, study.uid))) for study in task.predicted)
    return task.score(table) | (map_scores(maps, config.preprocess) if world.is_main else {})


def _map_levels(task: MapsLevels, model: nn.Module, config: Config, folder: Path, world: World) -> None:
    """The level maps of the predicted studies, each process its share; those that an interrupted run left stay."""
    for study in task.predicted[world.rank :: world.size]:
        file = map_file(folder, study.uid)
        if not file.exists():
            images = StudyImages(np.array(study.volume), study.geometry.z_mm, study.geometry.spacing_mm)
            write_level_map(file, task.map_levels([model], config, images, world.device))
    world.barrier()


def _account(
    config: Config, folder: Path, task: Task, score: dict[str, float], seconds: float, world: World
) -> dict[str, Any]:
    """done.json: what made this fold, and what it took; of several processes the memory of the first."""
    cuda = world.device.type == "cuda"
    return {
        "config_hash": config_hash(config),
        "weights_sha256": sha256(folder / "weights.safetensors"),
        "folds_sha256": sha256(folds_file(config)),
        "score": score,
        "facts": task.facts(),
        "seconds": round(seconds, 1),
        **peaks_gb(world.device),
        "device": torch.cuda.get_device_name() if cuda else f"cpu, {torch.get_num_threads()} threads",
        "processes": world.size,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


def _seconds_before(folder: Path) -> float:
    """What the whole epochs of an interrupted training took."""
    file = folder / "metrics.csv"
    return float(read_csv(file, ("seconds",))["seconds"].sum()) if file.exists() else 0.0


def _is_done(config: Config, folder: Path, resume: bool) -> bool:
    if not (folder / "config.json").exists():
        return False
    before = read_json(folder / "config.json")
    changed = differences(_hashed(before), hashed_part(config))
    if changed:
        raise UserError(
            f"{folder} holds a run of another config ({'; '.join(changed[:3])}); give this one another name=, "
            "or begin it again with --restart"
        )
    if _data_hash(folder) != read_fingerprint(config)["hash"]:
        raise UserError(
            f"{folder} was trained on other data than {fingerprint_file(config)} describes; put the data back, or "
            "train it with --restart"
        )
    if not (folder / "done.json").exists():
        if not resume and (folder / "last.ckpt").exists():
            raise UserError(
                f"{folder} holds an interrupted training; add --resume to go on or --restart to begin again"
            )
        return False
    if read_json(folder / "done.json")["folds_sha256"] != sha256(folds_file(config)):
        raise UserError(f"{folder} was trained on other folds than {folds_file(config)} holds; train it with --restart")
    return True


def _data_hash(folder: Path) -> str | None:
    return read_json(folder / "data.json")["hash"] if (folder / "data.json").exists() else None


def _hashed(values: dict[str, Any]) -> dict[str, Any]:
    return hashed_part(build(Config, values, "config.json"))


def _predictions_name(task: Task | type[Task]) -> str:
    return f"predictions{Path(task.run_table).suffix}"


def _read_predictions(folder: Path, task: type[Task]) -> pd.DataFrame:
    file = folder / _predictions_name(task)
    return pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file)


def _say(world: World, text: str) -> None:
    if world.is_main:
        print(text, flush=True)
