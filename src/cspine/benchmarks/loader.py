"""The training loop on its data beside the same step on a batch that is in memory: does the model ever wait?"""

from collections.abc import Iterable
from functools import partial

import torch
from torch import nn
from torch.utils.data import DataLoader

from cspine.benchmarks.cost import Cost, cost_of, median_cost, median_ratio
from cspine.config import Config
from cspine.engine.determinism import set_determinism
from cspine.engine.distributed import World, share_cores
from cspine.engine.forward import model_inputs
from cspine.engine.loader import EpochSampler, Samples, training_loader
from cspine.engine.state import TrainingState
from cspine.tasks.base import Task, find_task

WORLD = World(0, 1, torch.device("cpu"))
BATCHES = 24
GOAL = 0.9


def loader_table(config: Config, rounds: int) -> str:
    """Images a second and CPU time an image of both, the medians over `rounds` in turn, and their ratios."""
    share_cores(config.data.workers)
    ours, floor = measure(config, rounds, BATCHES)
    images = BATCHES * config.train.batch_size
    threads, workers = torch.get_num_threads(), config.data.workers
    ratio = median_ratio(floor, ours)
    lines = [
        f"{f'{config.name}: {config.model.backbone}, {config.data.image_size_px} px, on the CPU':68}"
        f"{'images/s':>10}{'CPU ms/image':>14}",
        _line(f"training loop: {threads} thread(s) compute, {workers} workers read and augment", ours, images),
        _line(f"the same step on a resident batch: {threads} thread(s)", floor, images),
        f"{f'ratio (goal: at least {GOAL})':68}{ratio.wall_s:>10.2f}{ratio.cpu_s:>14.2f}",
    ]
    return "\n".join(lines)


def measure(config: Config, rounds: int, batches: int) -> tuple[list[Cost], list[Cost]]:
    """The costs of `batches` batches of the loop and of the step alone, in turn; the loop's starts its workers."""
    set_determinism(config.train.seed)
    task = find_task(config.task)(config, None)
    samples = task.training_samples()
    step = _Step(task, config, rounds * 2 * batches + 1)
    resident = next(iter(batch_stream(samples, config, 0, batches=1)))
    step(resident)
    ours, floor = [], []
    for number in range(rounds):
        ours.append(cost_of(partial(_each, step, batch_stream(samples, config, number, batches))))
        floor.append(cost_of(partial(_each, step, [resident] * batches)))
    return ours, floor


def batch_stream(samples: Samples, config: Config, epoch: int, batches: int) -> DataLoader:
    """The training's loader, for so many batches; an epoch of small data is gone through again and again."""
    sampler = EpochSampler(samples, config.train.seed, epoch, WORLD, config.train.batch_size)
    wanted = batches * config.train.batch_size
    sampler.keys = (sampler.keys * -(-wanted // len(sampler.keys)))[:wanted]
    return training_loader(samples, sampler, config, WORLD)


def _each(step: "_Step", stream: Iterable[dict[str, torch.Tensor]]) -> None:
    for batch in stream:
        step(batch)


class _Step:
    """What engine/loop.py does with a batch."""

    def __init__(self, task: Task, config: Config, steps: int) -> None:
        self.task, self.clip_norm = task, config.train.clip_norm
        self.state = TrainingState(task.model().train(), config.train, steps, WORLD.device)

    def __call__(self, batch: dict[str, torch.Tensor]) -> float:
        state = self.state
        loss = self.task.loss(state.model(*model_inputs(batch)), batch)
        loss.backward()
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(state.model.parameters(), self.clip_norm)
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        state.schedule.step()
        return float(loss.detach())


def _line(what: str, costs: list[Cost], images: int) -> str:
    cost = median_cost(costs)
    return f"{what:68}{images / cost.wall_s:>10.0f}{1000 * cost.cpu_s / images:>14.2f}"
