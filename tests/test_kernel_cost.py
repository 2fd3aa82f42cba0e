"""The floor repeats what the models were asked, and the table has every stage; no times are asserted."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_pipeline import Prepared

from cspine.benchmarks.kernel_cost import Calls, kernel_table
from cspine.bundle import from_runs
from cspine.data.cache import open_study
from cspine.errors import UserError
from cspine.predictor import Predictor
from cspine.tasks.base import StudyImages


def test_the_floor_makes_the_same_calls(trained: Prepared) -> None:
    predictor = Predictor(from_runs(trained.oof), torch.device("cpu"))
    calls = Calls([*predictor.stage1, *predictor.members])
    study = open_study(trained.fracture, trained.data.uids[0])
    images = StudyImages(np.array(study.volume), study.geometry.z_mm, study.geometry.spacing_mm)
    predictor.predict(lambda _: images)
    counts = {run: [len(own) for own in models] for run, models in calls.by_model.items()}
    assert counts == {"v": [1, 1], "f": [1, 1], "g": [1, 1]}
    made = calls.by_model["v"][0][0]
    assert torch.equal(made(), made.func(*made.args))
    assert made.args[0].shape[0] == len(study.volume)
    calls.record = False
    calls.play("g")
    assert counts["g"] == [len(own) for own in calls.by_model["g"]]


def test_every_stage_has_its_floor(trained: Prepared, tmp_path: Path) -> None:
    folders = [trained.test_images / uid for uid in trained.data.uids[:2]]
    table = kernel_table(folders, trained.oof, rounds=1, readers=1)
    for stage in ("reading", "decoding", "level finding", "fracture heads", "together"):
        assert f"{stage}, " in table
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="the folder is empty"):
        kernel_table([tmp_path / "empty"], trained.oof, 1, 1)
