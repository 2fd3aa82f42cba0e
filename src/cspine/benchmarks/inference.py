"""A study from the cache through a vertebra model, the order of its levels included, beside the bare forward passes."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from cspine.benchmarks.cost import Cost, cost_of, median_cost, median_ratio
from cspine.config import Config
from cspine.data.cache import cached_studies, open_study
from cspine.data.mapped import map_array
from cspine.engine.distributed import share_cores
from cspine.errors import UserError
from cspine.tasks.base import StudyImages, find_task

CPU = torch.device("cpu")
SLICES, SPACING_MM = 350, 0.6
GOAL = 1.15


def inference_table(config: Config, rounds: int) -> str:
    """Seconds a study of 350 slices, medians over `rounds` in turn, and the ratio to reading and forward passes alone.

    Raises UserError where the cache is empty, or the model is not one of slices.
    """
    if config.task != "vertebra/image":
        raise UserError(f"{config.name}: `inference` measures a vertebra/image model, not {config.task}")
    share_cores(config.data.workers)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "study.npy"
        np.save(file, long_study(config))
        ours, floor = whole_and_floor(config, file)
        costs: dict[str, list[Cost]] = {"ours": [], "floor": []}
        for number in range(rounds + 1):
            both = {"ours": cost_of(ours), "floor": cost_of(floor)}
            # The first pass compiles and allocates.
            if number:
                for name, cost in both.items():
                    costs[name].append(cost)
    return _table(config, costs["ours"], costs["floor"])


def long_study(config: Config) -> np.ndarray:
    """A study of the cache with its slices repeated, or left out, until there are 350: uint8 (z, windows, y, x)."""
    uids = cached_studies(config)
    if not uids:
        raise UserError("the cache is empty for these settings; fill it with: python src/prepare.py")
    volume = open_study(config, uids[0]).volume
    return volume[np.linspace(0, len(volume) - 1, SLICES).round().astype(int)]


def whole_and_floor(config: Config, file: Path) -> tuple[Callable[[], np.ndarray], Callable[[], np.ndarray]]:
    """Two ways to the levels of the study in `file`: the task's, ordered, and reading and forward passes alone."""
    task = find_task(config.task)(config, None)
    model, facts = task.model().eval(), [task.facts()]
    z_mm = -SPACING_MM * np.arange(SLICES)
    images = StudyImages(np.load(file), z_mm, SPACING_MM)
    resident = [torch.from_numpy(batch["image"]) for batch in images.batches(np.arange(SLICES), config)]

    def ours() -> np.ndarray:
        read = StudyImages(map_array(file), z_mm, SPACING_MM)
        return type(task).infer([model], config, read, facts, CPU)

    def floor() -> np.ndarray:
        np.load(file)
        return _forward(model, resident)

    return ours, floor


@torch.inference_mode()
def _forward(model: nn.Module, batches: list[torch.Tensor]) -> np.ndarray:
    return torch.cat([model(batch).sigmoid() for batch in batches]).numpy()


def _table(config: Config, ours: list[Cost], floor: list[Cost]) -> str:
    threads = torch.get_num_threads()
    title = f"{config.name}: {config.model.backbone}, {config.data.image_size_px} px, {SLICES} slices, 1 model"
    lines = [f"{title:68}{'s':>8}{'CPU s':>8}"]
    for what, costs in (("the task's inference, order included", ours), ("file read, bare forward passes", floor)):
        cost = median_cost(costs)
        lines.append(f"{f'{what}: {threads} thread(s)':68}{cost.wall_s:>8.3f}{cost.cpu_s:>8.3f}")
    ratio = median_ratio(ours, floor)
    return "\n".join([*lines, f"{f'ratio (goal: at most {GOAL})':68}{ratio.wall_s:>8.2f}{ratio.cpu_s:>8.2f}"])
