"""What the kernel needs for a study, by stage, beside what no kernel could do without.

The floors: the bytes of the files read once; decoding.py's floor, the fastest decoder and the resize; and the same
calls of the same models, their inputs ready in memory.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cspine.benchmarks.cost import Cost, cost_of
from cspine.benchmarks.decoding import Subject, decode_floor, find_subject, resize_by_ours
from cspine.budget import Plan
from cspine.bundle import from_runs
from cspine.data.decode import DecodeTask, decode_files, read_ahead
from cspine.dispatch import Limits, answers
from cspine.engine.distributed import share_cores
from cspine.errors import UserError
from cspine.inference import LoadedMember, study_images
from cspine.offline import by_stage
from cspine.predictor import Predictor
from cspine.stopwatch import Stopwatch

CPU = torch.device("cpu")
GOAL = 1.2
# Enough for the readers to be well ahead of the models.
PIPELINED = 12


class Calls:
    """What the models of runs are called with, while `record` is on, and the same calls again."""

    def __init__(self, runs: Sequence[LoadedMember]) -> None:
        self.by_model: dict[str, list[list[Callable[[], Any]]]] = {}
        self.record = True
        self._within = threading.local()
        for run in runs:
            calls = self.by_model[run.config.name] = [[] for _ in run.models]
            for model, own in zip(run.models, calls, strict=True):
                # A 3-D model is asked for its voxels by `segment`.
                for name in ("forward", "segment"):
                    if hasattr(model, name):
                        setattr(model, name, partial(self._call, own, getattr(model, name)))

    def _call(self, own: list[Callable[[], Any]], function: Callable[..., Any], *inputs: torch.Tensor) -> Any:
        if getattr(self._within, "one", False):
            return function(*inputs)
        if self.record:
            own.append(partial(function, *inputs))
        self._within.one = True
        try:
            return function(*inputs)
        finally:
            self._within.one = False

    def clear(self) -> None:
        for models in self.by_model.values():
            for own in models:
                own.clear()

    def play(self, run: str) -> None:
        """A run's calls, its models side by side as in engine/forward.py."""
        models = self.by_model[run]
        with ThreadPoolExecutor(len(models)) as pool:
            list(pool.map(_play, models))


@torch.inference_mode()
def _play(calls: Sequence[Callable[[], Any]]) -> None:
    for call in calls:
        call()


def kernel_table(folders: Sequence[Path], oof: Path, rounds: int, readers: int) -> str:
    """CPU seconds a study by stage, ours and the floor, medians over `rounds`; wall time, also as the kernel runs.

    Raises UserError for a study that cannot be read.
    """
    share_cores(0)
    predictor = Predictor(from_runs(oof), CPU)
    calls = Calls([*predictor.stage1, *predictor.members])
    subjects = [find_subject(folder, predictor.preprocesses[0]) for folder in folders]
    ours: list[Stopwatch] = []
    floors: list[Stopwatch] = []
    costs: dict[str, list[Cost]] = {"ours": [], "floor": []}
    for number in range(rounds + 1):
        one, other = Stopwatch(time.process_time), Stopwatch(time.process_time)
        calls.record = True
        calls.clear()
        both = {"ours": cost_of(partial(_predict, predictor, folders, one))}
        calls.record = False
        both["floor"] = cost_of(partial(_floor, calls, subjects, other))
        # The first pass compiles and allocates.
        if number:
            ours.append(one)
            floors.append(other)
            for name, cost in both.items():
                costs[name].append(cost)
    stage1 = [run.config.name for run in predictor.stage1]
    lines = _stages(ours, floors, stage1, len(folders)) + _together(costs, len(folders))
    pipelined_s = _pipelined(predictor, folders, readers)
    return "\n".join([*lines, f"{f'wall, as the kernel runs: {readers} processes read':44}{pipelined_s:>9.3f}"])


def _predict(predictor: Predictor, folders: Sequence[Path], watch: Stopwatch) -> None:
    for folder in folders:
        with watch("reading"):
            read_ahead(folder)
        with watch("decoding"):
            study = decode_files(DecodeTask(folder.name, folder, tuple(predictor.preprocesses)))
        if study.bad is not None:
            raise UserError(f"{folder}: {study.bad}")
        predictor.predict(partial(study_images, study), watch=watch)


def _floor(calls: Calls, subjects: Sequence[Subject], watch: Stopwatch) -> None:
    for subject in subjects:
        with watch("reading"):
            for header in subject.stack.headers:
                header.file.read_bytes()
        with watch("decoding"):
            decode_floor(subject, resize_by_ours, 0)
    for run in calls.by_model:
        with watch(run):
            calls.play(run)


def _pipelined(predictor: Predictor, folders: Sequence[Path], readers: int) -> float:
    """Seconds a study while processes read the next ones; the start of these does not count."""
    share_cores(readers)
    settings = tuple(predictor.preprocesses)
    tasks = [
        DecodeTask(f"{number}", folders[number % len(folders)], settings) for number in range(readers + 1 + PIPELINED)
    ]
    times = []
    for answer in answers([predictor], tasks, Limits(readers), lambda _: Plan()):
        if answer.row is None:
            raise UserError(f"{answer.uid}: {answer.reason}")
        times.append(time.monotonic())
    return (times[-1] - times[readers]) / PIPELINED


def _stages(ours: Sequence[Stopwatch], floors: Sequence[Stopwatch], stage1: Sequence[str], studies: int) -> list[str]:
    lines = [f"{'seconds a study, one process':44}{'ours':>9}{'floor':>9}{'ratio':>8}"]
    one, other = ([by_stage(watch.seconds, stage1) for watch in side] for side in (ours, floors))
    for stage in one[0]:
        pairs = [(a[stage], b[stage]) for a, b in zip(one, other, strict=True)]
        lines.append(_line(f"{stage}, CPU", pairs, studies))
    return lines


def _together(costs: Mapping[str, Sequence[Cost]], studies: int) -> list[str]:
    lines = []
    for name, told in (("cpu_s", f"together, CPU (goal: at most {GOAL})"), ("wall_s", "together, wall")):
        pairs = [(getattr(a, name), getattr(b, name)) for a, b in zip(*costs.values(), strict=True)]
        lines.append(_line(told, pairs, studies))
    return lines


def _line(told: str, pairs: Sequence[tuple[float, float]], studies: int) -> str:
    """Medians of ours, of the floor, and of their ratios."""
    ours, floor, ratio = (float(np.median(values)) for values in zip(*((a, b, a / b) for a, b in pairs), strict=True))
    return f"{told:44}{ours / studies:>9.3f}{floor / studies:>9.3f}{ratio:>8.2f}"
