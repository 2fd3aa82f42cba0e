"""Batches whose content follows from (seed, epoch, position) alone, so that a training can stop and go on anywhere."""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from cspine.config import Config
from cspine.engine.determinism import seed_worker
from cspine.engine.distributed import World


class Samples(Protocol):
    """A dataset of the engine. A key is (index, seed); a seed below 0 asks for the sample without augmentation."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]: ...

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """The indices that one epoch visits, in order."""
        ...


class EpochSampler(Sampler):
    """The keys of one epoch for one process, from `start` on; every process gets equally many."""

    def __init__(self, samples: Samples, seed: int, epoch: int, world: World, batch_size: int) -> None:
        order = samples.draw(np.random.default_rng([seed, epoch]))
        # Batch statistics of a single left-over sample are undefined, so an incomplete last batch goes.
        per_step = batch_size * world.size
        whole = len(order) // per_step * per_step or len(order) // world.size * world.size
        seeds = np.random.default_rng([seed, epoch, 1]).integers(0, 2**32, len(order))
        self.keys = [(int(i), int(s)) for i, s in zip(order[:whole], seeds[:whole], strict=True)][
            world.rank :: world.size
        ]
        self.start = 0

    def __len__(self) -> int:
        return len(self.keys) - self.start

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.keys[self.start :])


def training_loader(samples: Samples, sampler: EpochSampler, config: Config, world: World) -> DataLoader:
    return _loader(samples, sampler, config.train.batch_size, config, world)


def prediction_loader(samples: Samples, config: Config, world: World) -> DataLoader:
    """Every sample once over all processes, unaugmented, in order within each process."""
    keys = [(index, -1) for index in range(len(samples))][world.rank :: world.size]
    # Without gradients twice the samples fit.
    return _loader(samples, keys, 2 * config.train.batch_size, config, world)


def _loader(samples: Any, sampler: Any, batch_size: int, config: Config, world: World) -> DataLoader:
    return DataLoader(
        samples,
        batch_size,
        sampler=sampler,
        num_workers=config.data.workers,
        pin_memory=world.device.type == "cuda",
        worker_init_fn=seed_worker,
        # Its own generator keeps the loader from drawing on the one that dropout uses.
        generator=torch.Generator(),
    )
