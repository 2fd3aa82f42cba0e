"""What to leave out so that all studies are predicted in time: first views, then members, the least valuable first."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

# Estimates are means over so many studies; the first study of all, which compiles and allocates, does not count.
REMEMBERED = 20
# So much longer than estimated the rest may take.
MARGIN = 1.15


@dataclass(frozen=True)
class Plan:
    """What a study gets: `views` are the mirror images that some members also look at."""

    views: bool = True
    dropped: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [] if self.views else ["mirror images"]
        return f"without {', '.join([*parts, *self.dropped])}" if parts or self.dropped else "everything"


@dataclass(frozen=True)
class Runs:
    """What the budget knows of the runs of a bundle.

    `reads` has every run, with the others that it needs, `order` the members, the least valuable first, and `mirrored`
    those runs that look at mirror images too, which doubles their cost.
    """

    reads: Mapping[str, tuple[str, ...]]
    order: Sequence[str]
    mirrored: frozenset[str] = frozenset()

    def plans(self) -> list[Plan]:
        """Every plan, the best first; the last keeps one member."""
        views = [Plan(), *([Plan(views=False)] if self.mirrored else [])]
        return views + [Plan(not self.mirrored, tuple(self.order[:count])) for count in range(1, len(self.order))]

    def needed(self, plan: Plan) -> set[str]:
        """The members that a plan keeps, and all that they read."""
        needed: set[str] = set()
        waiting = [name for name in self.order if name not in plan.dropped]
        while waiting:
            if (name := waiting.pop()) not in needed:
                needed.add(name)
                waiting += self.reads[name]
        return needed


class Budget:
    """Measures what studies cost and plans the rest; a plan may grow again when the estimates fall."""

    def __init__(self, runs: Runs, devices: int = 1, readers: int = 1) -> None:
        self.runs, self.devices, self.readers = runs, devices, readers
        self.costs_s: dict[str, deque[float]] = {}  # of each run, mirror images included
        self.reading_s: deque[float] = deque(maxlen=REMEMBERED)
        self.observed = 0

    def observe(self, seconds: Mapping[str, float], reading_s: float, plan: Plan) -> None:
        """Take a study's seconds, by run, and those of its reading and decoding, in one process."""
        self.observed += 1
        if self.observed == 1:
            return
        self.reading_s.append(reading_s)
        for name in self.runs.reads.keys() & seconds.keys():
            halved = name in self.runs.mirrored and not plan.views
            self.costs_s.setdefault(name, deque(maxlen=REMEMBERED)).append(seconds[name] * (2 if halved else 1))

    def study_s(self, plan: Plan) -> float:
        """Estimated seconds a study of all that the devices do under a plan; 0 for runs not measured yet."""
        total = 0.0
        for name in self.runs.needed(plan) & self.costs_s.keys():
            total += fmean(self.costs_s[name]) / (2 if name in self.runs.mirrored and not plan.views else 1)
        return total / self.devices

    def plan(self, studies: int, left_s: float) -> Plan:
        """The best plan by which so many studies are done in the time left.

        Where reading is what takes long, nothing is dropped that would only let the devices wait for it.
        """
        reading_s = fmean(self.reading_s) / self.readers if self.reading_s else 0.0
        allowed_s = max(left_s / max(1, studies) / MARGIN, reading_s)
        plans = self.runs.plans()
        return next((plan for plan in plans if self.study_s(plan) <= allowed_s), plans[-1])
