"""The mean of several epochs' weights: which epochs, with statistics of its own, and what it is refused with."""

from pathlib import Path

import pytest
import torch
from test_engine import ALONE, Blobs, Toy, config, weights
from torch import nn

from cspine.config import Train
from cspine.engine.averaging import refresh_statistics
from cspine.engine.loop import fit
from cspine.engine.state import TrainingState
from cspine.errors import UserError


def test_the_mean_is_of_the_last_epochs() -> None:
    model = nn.Linear(1, 1)
    state = TrainingState(model, Train(epochs=4, average_last=2), 4, torch.device("cpu"))
    for epoch in range(4):
        with torch.no_grad():
            model.weight.fill_(float(epoch))
        state.end_epoch(loss=0.0)
    assert state.best_model.weight.tolist() == [[2.5]]


def test_a_training_ends_in_a_mean_that_differs_from_its_last_weights(tmp_path: Path) -> None:
    found = {}
    for count in (1, 3):
        (tmp_path / str(count)).mkdir()
        settings = config(ema_decay=0.0, average_last=count)
        found[count] = weights(fit(Toy(), settings, tmp_path / str(count), ALONE))
    assert not torch.equal(found[1], found[3])


def test_a_training_killed_after_its_last_epoch_comes_to_the_same_mean(tmp_path: Path) -> None:
    settings = config(ema_decay=0.0, average_last=2)
    whole = weights(fit(Toy(), settings, tmp_path, ALONE))
    assert torch.equal(weights(fit(Toy(), settings, tmp_path, ALONE, resume=True)), whole)


def test_statistics_are_the_mean_over_the_batches_and_nothing_else_moves() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm1d(3), nn.Linear(3, 1))
    norm: nn.BatchNorm1d = model[1]  # type: ignore[assignment]
    norm.running_mean.fill_(9.0)  # type: ignore[union-attr]
    before = [value.clone() for value in model.parameters()]
    batches = [{"image": torch.randn(8, 3) + 2, "fractured": torch.zeros(8)} for _ in range(4)]
    refresh_statistics(model, batches, ALONE)
    images = [batch["image"] for batch in batches]
    assert torch.allclose(norm.running_mean, torch.stack([image.mean(0) for image in images]).mean(0), atol=1e-6)
    assert torch.allclose(norm.running_var, torch.stack([image.var(0) for image in images]).mean(0), atol=1e-6)
    assert norm.momentum == 0.1
    assert not any(part.training for part in model.modules())
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))


def test_a_trained_mean_knows_the_spread_of_what_its_norms_see(tmp_path: Path) -> None:
    """The mean of the epochs' statistics, or those of the last weights, would be those of other features."""
    settings = config(ema_decay=0.0, average_last=3, max_rate=0.1)
    model: nn.Sequential = fit(Toy(), settings, tmp_path, ALONE)  # type: ignore[assignment]
    samples = Blobs()
    images = torch.stack([samples[index, -1]["image"] for index in range(len(samples))])
    with torch.no_grad():
        seen = model[0](images)
    assert torch.allclose(model[1].running_mean, seen.mean((0, 2, 3)), atol=0.1)  # type: ignore[arg-type]


def test_two_averages_and_more_epochs_than_there_are_are_refused() -> None:
    for settings, told in ((Train(average_last=2, ema_decay=0.9), "both average"), (Train(average_last=5), "only 4")):
        with pytest.raises(UserError, match=told):
            TrainingState(nn.Linear(1, 1), settings, 4, torch.device("cpu"))
