"""Seconds by what they were spent on."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopwatch:
    """`with watch("levels"):` adds to `watch.seconds["levels"]`.

    Within it another block may run, whose seconds then count for that one alone: all together never exceed what the
    clock has run. `time.process_time` as the clock counts those of the CPU, of all threads.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.seconds: Counter[str] = Counter()
        self._inner: list[float] = []  # seconds of blocks within, for each open block

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        began = self.clock()
        self._inner.append(0.0)
        try:
            yield
        finally:
            passed = self.clock() - began
            self.seconds[name] += passed - self._inner.pop()  # type: ignore[assignment]
            if self._inner:
                self._inner[-1] += passed
