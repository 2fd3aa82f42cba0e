"""Seconds are counted once."""

import time

import pytest

from cspine.stopwatch import Stopwatch


def test_a_block_within_another_counts_for_itself_alone() -> None:
    watch = Stopwatch()
    began = time.perf_counter()
    with watch("heads"):
        with watch("levels"):
            time.sleep(0.03)
        with watch("levels"):
            time.sleep(0.02)
    assert sum(watch.seconds.values()) <= time.perf_counter() - began
    assert watch.seconds["levels"] >= 0.05
    assert watch.seconds["heads"] == pytest.approx(0, abs=0.04)


def test_a_block_that_fails_counts_too() -> None:
    watch = Stopwatch()
    with pytest.raises(KeyError), watch("heads"), watch("levels"):
        raise KeyError
    assert watch.seconds.keys() == {"heads", "levels"}
    with watch("heads"):
        pass
    assert watch._inner == []
