"""What a run leaves once its folds are joined: curves, costs, scores, and the studies that it is most wrong about."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from simulated_runs import SimulatedRuns
from tiny_pipeline import ALONE, Prepared
from torch import nn

from cspine.anatomy import TARGETS
from cspine.engine.peaks import PROCESS, begin_peaks, peaks_gb
from cspine.engine.saliency import smooth_gradient
from cspine.errors import UserError
from cspine.metrics import study_losses, weighted_log_loss
from cspine.runs import Run, read_out_of_fold
from cspine.scores import out_of_fold_scores
from cspine.story import run_costs
from cspine.tables import STUDY
from cspine.tasks.base import LooksAtLevels, find_task, list_tasks
from cspine.training import train_fold
from cspine.worst import draw_worst, worst_cases

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    made = Prepared(tmp_path_factory.mktemp("story"))
    made.train()
    return made


def test_a_joined_run_tells_what_it_cost_and_how_well_each_target_does(trained: Prepared) -> None:
    folder = trained.oof / "f"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["hours"] == pytest.approx(sum(fold["hours"] for fold in summary["folds"].values()), abs=1e-4)
    assert summary["peak_rss_gb"] == max(fold["peak_rss_gb"] for fold in summary["folds"].values()) > 0
    assert summary["peak_gpu_gb"] is None
    data = read_out_of_fold([Run("f", folder)], trained.fracture)
    assert summary["scores"] == out_of_fold_scores("f", data)
    table = pd.read_csv(folder / "scores.csv").set_index("target")
    assert set(table.index) == set(TARGETS)
    weights = np.array([7.0] + [1.0] * 7)
    column = np.average(table.loc[list(TARGETS), "loss"], weights=weights)
    assert column == pytest.approx(weighted_log_loss(data.labels, data.predictions["f"], "column"), abs=1e-5)
    assert (table["constant_loss"] <= table["loss"] + 1e-6).any()
    for picture in (folder / "curves.png", folder / "scores.png", trained.oof / "v" / "curves.png"):
        assert picture.stat().st_size > 5000


def test_a_fold_trained_before_its_memory_was_measured_has_none(tmp_path: Path) -> None:
    accounts = {"seconds": 1800.0, "peak_rss_gb": 2.0, "score": {}}, {"seconds": 900.0, "score": {}}
    for fold, account in enumerate(accounts):
        (tmp_path / f"fold{fold}").mkdir()
        (tmp_path / f"fold{fold}" / "done.json").write_text(json.dumps(account))
    costs = run_costs(tmp_path)
    assert (costs["hours"], costs["peak_rss_gb"]) == (0.75, 2.0)
    assert costs["folds"]["fold1"]["peak_rss_gb"] is None


def test_hours_count_the_epochs_before_an_interruption(trained: Prepared) -> None:
    config = replace(trained.fracture, name="resumed")
    folder = trained.oof / "resumed" / "fold0"
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text("epoch,seconds\n1,3600\n2,3600\n")
    train_fold(config, 0, ALONE, resume=True)
    assert 7200 < json.loads((folder / "done.json").read_text())["seconds"] < 10800


def test_the_peak_is_that_of_the_stretch_of_work() -> None:
    try:
        (PROCESS / "clear_refs").write_text("5")
    except PermissionError:
        pytest.skip("this sandbox does not let a process forget its peak")
    begin_peaks(CPU)
    before = peaks_gb(CPU)["peak_rss_gb"]
    block = np.ones(40_000_000)
    after = peaks_gb(CPU)["peak_rss_gb"]
    assert before is not None
    assert after is not None
    assert after - before > 0.9 * block.nbytes / 1e9


def test_the_worst_are_those_with_the_greatest_loss(tmp_path: Path) -> None:
    runs = SimulatedRuns(tmp_path)
    predictions = runs.add_fracture("good")
    runs_data = read_out_of_fold([Run("good", runs.oof / "good")], runs.config)
    cases = worst_cases(runs_data, "good", 5)
    losses = study_losses(runs.labels, predictions)
    assert [case.loss for case in cases] == sorted(losses, reverse=True)[:5]
    assert losses.mean() == pytest.approx(weighted_log_loss(runs.labels, predictions, "row"))


def test_each_of_the_worst_is_drawn_by_the_fold_that_held_it_out(trained: Prepared) -> None:
    folder = draw_worst("f", trained.fracture, 3)
    table = pd.read_csv(trained.oof / "f" / "worst.csv")
    assert list(table["rank"]) == [1, 2, 3]
    assert table["loss"].is_monotonic_decreasing
    assert sorted(path.name for path in folder.glob("*.png")) == [Path(name).name for name in table["picture"]]
    folds = dict(zip(read_out_of_fold([Run("f", trained.oof / "f")], trained.fracture).uids, [0, 1] * 10, strict=False))
    assert set(table[STUDY]) <= set(folds)
    # Fewer are asked for: what was drawn before does not stay.
    draw_worst("f", trained.fracture, 1)
    assert len(list(folder.glob("*.png"))) == 1


def test_a_vertebra_run_has_no_worst_studies(trained: Prepared) -> None:
    with pytest.raises(UserError, match="no fracture run"):
        draw_worst("v", replace(trained.fracture), 1)


def test_the_heat_lies_where_the_model_looks() -> None:
    class Corner(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            bright = images.float()[:, 0, 2:4, 5].sum(dim=1)
            return torch.stack([0 * bright, bright.square()], dim=1)

    heat = smooth_gradient(Corner(), {"image": np.full((1, 2, 8, 8), 50, np.uint8)}, 1, CPU)
    assert heat.shape == (1, 2, 8, 8)
    assert set(zip(*np.nonzero(heat), strict=True)) == {(0, 0, 2, 5), (0, 0, 3, 5)}


def test_all_heads_but_those_without_a_gradient_by_level_tell_what_they_see() -> None:
    heads = [name for name in list_tasks() if name.startswith("fracture/")]
    blind = {name for name in heads if not issubclass(find_task(name), LooksAtLevels)}
    assert blind == {"fracture/recurrent", "fracture/neighbours"}
