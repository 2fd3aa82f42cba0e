"""Studies are judged while others are read, on every device, and not after the deadline."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_pipeline import Prepared

from cspine.budget import Plan
from cspine.bundle import from_runs
from cspine.data.decode import DecodeTask
from cspine.dispatch import Limits, answers
from cspine.predictor import Predictor

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def predictors(trained: Prepared) -> list[Predictor]:
    return [Predictor(from_runs(trained.oof), CPU) for _ in range(2)]


def test_two_devices_give_what_one_gives(trained: Prepared, predictors: list[Predictor], tmp_path: Path) -> None:
    settings = tuple(predictors[0].preprocesses)
    tasks = [DecodeTask(uid, trained.test_images / uid, settings) for uid in trained.data.uids[:3]]
    tasks.insert(1, DecodeTask("absent", tmp_path, settings))
    left: list[int] = []

    def plan_for(studies: int) -> Plan:
        left.append(studies)
        return Plan()

    one, two = (
        {answer.uid: answer for answer in answers(predictors[:count], tasks, Limits(readers=1), plan_for)}
        for count in (1, 2)
    )
    assert one.keys() == two.keys() == {task.uid for task in tasks}
    for uid in trained.data.uids[:3]:
        assert np.array_equal(one[uid].row, two[uid].row)
        assert one[uid].seconds.keys() == {"v", "f", "g"}
    assert one["absent"].row is None
    assert one["absent"].reason == "the folder is empty"
    assert left == [4, 2, 1] * 2


def test_nothing_comes_after_the_deadline(trained: Prepared, predictors: list[Predictor]) -> None:
    tasks = [DecodeTask(uid, trained.test_images / uid, ()) for uid in trained.data.uids[:3]]
    assert list(answers(predictors, tasks, Limits(until=time.monotonic()), lambda _: Plan())) == []
