"""What a piece of work costs: wall time, which other programs on the machine lengthen, and CPU time, hardly."""

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Cost:
    """Seconds; `cpu_s` is that of all threads, and of the child processes that ended meanwhile."""

    wall_s: float
    cpu_s: float


def cost_of(work: Callable[[], object]) -> Cost:
    """Do it once."""
    cpu, wall = _cpu_s(), time.perf_counter()
    work()
    return Cost(time.perf_counter() - wall, _cpu_s() - cpu)


def median_cost(costs: Sequence[Cost]) -> Cost:
    """Each figure's median."""
    return Cost(*(float(np.median([getattr(cost, name) for cost in costs])) for name in ("wall_s", "cpu_s")))


def median_ratio(above: Sequence[Cost], below: Sequence[Cost]) -> Cost:
    """The medians of the ratios of costs that were measured in turn (in the fields of a cost, without unit)."""
    return median_cost([Cost(a.wall_s / b.wall_s, a.cpu_s / b.cpu_s) for a, b in zip(above, below, strict=True)])


def _cpu_s() -> float:
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)
