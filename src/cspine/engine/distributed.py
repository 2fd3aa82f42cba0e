"""One process, or several under torchrun (`torchrun --nproc_per_node 2 src/train.py --fold 0`)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from cspine.errors import UserError


@dataclass(frozen=True)
class World:
    """This process among its peers. All of them run the same code; only the main one writes files and prints."""

    rank: int
    size: int
    device: torch.device
    bars: bool = True

    @property
    def hide_bar(self) -> bool | None:
        """For tqdm: None shows the bar where the output is a terminal."""
        return None if self.is_main and self.bars else True

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """The value of every process, in rank order, in every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()


@contextmanager
def join_world(device: str = "auto", others: int = 0, bars: bool = True) -> Iterator[World]:
    """Join the processes that torchrun started, or be alone; `others` are processes that want a core of their own."""
    size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    chosen, threads = own_device(device), torch.get_num_threads()
    share_cores(others)
    if size > 1:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield World(rank, size, chosen, bars)
    finally:
        if size > 1:
            dist.destroy_process_group()
        torch.set_num_threads(threads)


def share_cores(others: int) -> None:
    """Leave a core to each of so many other processes, and compute with the rest.

    OpenMP's threads spin while they wait; with more threads than cores a small model trains ten times slower.
    OMP_NUM_THREADS, which torchrun sets, takes precedence.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) - others))


def own_device(name: str) -> torch.device:
    """`choose_device` for this process among those that torchrun started here."""
    return choose_device(name, int(os.environ.get("LOCAL_RANK", 0)))


def choose_device(name: str, index: int = 0) -> torch.device:
    """`auto` takes CUDA where there is one; asking for a CUDA that is not there is an error."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("train.device=cuda, but torch sees no CUDA device; use train.device=auto or cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def all_devices(name: str) -> list[torch.device]:
    """Every CUDA device, or the CPU; `name` as in `choose_device`."""
    first = choose_device(name)
    return [first] if first.type == "cpu" else [torch.device("cuda", k) for k in range(torch.cuda.device_count())]
