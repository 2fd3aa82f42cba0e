"""Seconds by what they were spent on."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """`with watch("levels"):` adds to `watch.seconds["levels"]`.

    Within it another block may run, whose seconds then count for that one alone: all together never exceed what the
    clock has run.
    """

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._inner: list[float] = []  # seconds of blocks within, for each open block

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        self._inner.append(0.0)
        try:
            yield
        finally:
            passed = time.perf_counter() - began
            self.seconds[name] += passed - self._inner.pop()  # type: ignore[assignment]
            if self._inner:
                self._inner[-1] += passed
