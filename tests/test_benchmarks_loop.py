"""The benchmarks of the loop and of a study's inference do the work they say they measure; no times are asserted."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_pipeline import Prepared

from cspine.benchmarks.cost import Cost, median_ratio
from cspine.benchmarks.inference import SLICES, inference_table, long_study, whole_and_floor
from cspine.benchmarks.loader import batch_stream, measure
from cspine.data.cache import open_study
from cspine.errors import UserError
from cspine.tasks.base import find_task


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    with tempfile.TemporaryDirectory() as folder:
        yield Prepared(Path(folder))


def test_ratios_are_of_costs_measured_together() -> None:
    ours, floor = [Cost(2, 4), Cost(30, 9), Cost(4, 8)], [Cost(1, 1), Cost(10, 3), Cost(4, 2)]
    assert median_ratio(ours, floor) == Cost(2, 4)


def test_the_loop_goes_on_where_an_epoch_is_shorter(prepared: Prepared) -> None:
    config = prepared.vertebra
    samples = find_task(config.task)(config, None).training_samples()
    assert len(samples) == 4 * config.train.batch_size
    for batches in (2, 5):
        sizes = [len(batch["image"]) for batch in batch_stream(samples, config, 0, batches)]
        assert sizes == [config.train.batch_size] * batches


def test_each_round_gives_a_cost_of_both(prepared: Prepared) -> None:
    ours, floor = measure(prepared.vertebra, rounds=2, batches=1)
    assert len(ours) == len(floor) == 2


def test_both_ways_see_the_same_long_study(prepared: Prepared, tmp_path: Path) -> None:
    """Without an order the task's inference is what the bare passes give."""
    config = replace(prepared.vertebra, order=replace(prepared.vertebra.order, evidence_mm=0.0))
    volume = long_study(config)
    own = open_study(config, prepared.data.uids[0]).volume
    assert volume.shape == (SLICES, *own.shape[1:])
    assert np.array_equal(volume[[0, -1]], own[[0, -1]])
    np.save(tmp_path / "study.npy", volume)
    ours, floor = whole_and_floor(config, tmp_path / "study.npy")
    assert ours().shape == (SLICES, 7)
    assert np.allclose(ours(), floor(), atol=1e-5)


def test_other_tasks_are_refused(prepared: Prepared) -> None:
    with pytest.raises(UserError, match="vertebra/image model, not fracture/slice"):
        inference_table(prepared.fracture, 1)
