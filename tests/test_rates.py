"""Which parameters learn how fast, and how the rates go over the steps."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from cspine.config import Model, Train
from cspine.engine.rates import parameter_groups, rate_schedule
from cspine.errors import UserError
from cspine.models.registry import create_model

MODELS = {
    "slice": (Model(backbone="test_resnet"), 1, 7, "backbone.layer1", "backbone.layer4"),
    "sequence": (
        Model(name="sequence_classifier", backbone="lcnet_050"),
        1,
        1,
        "backbone.conv_stem",
        "backbone.blocks.5",
    ),
    "plain": (Model(name="plain_unet", width=4), 1, 7, "encoder.stages.0", "encoder.stages.3"),
    "inflated": (
        Model(name="level_volume_classifier", encoder="inflated", backbone="test_resnet"),
        1,
        1,
        "classifier.encoder.network.layer1",
        "classifier.encoder.network.layer4",
    ),
}


def rates_of(model: nn.Module, settings: Train) -> dict[str, float]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, settings)
    found = {names[parameter]: group["lr"] for group in groups for parameter in group["params"]}
    assert len(found) == sum(len(group["params"]) for group in groups) == len(names)
    return found


@pytest.mark.parametrize("name", MODELS)
def test_early_layers_of_any_encoder_learn_slower_and_the_head_at_full_rate(name: str) -> None:
    settings, channels, outputs, early, late = MODELS[name]
    rates = rates_of(create_model(settings, channels, outputs), Train(layer_decay=0.5, max_rate=0.1))
    slow, fast = ({rate for key, rate in rates.items() if key.startswith(part)} for part in (early, late))
    assert max(slow) < min(fast)
    assert max(rates.values()) == 0.1
    assert {rate for key, rate in rates.items() if "backbone" not in key and "encoder" not in key} == {0.1}
    ratios = [math.log2(0.1 / rate) for rate in rates.values()]
    assert ratios == pytest.approx([round(ratio) for ratio in ratios])


def test_without_decay_there_is_one_group_and_an_encoder_without_order_is_refused() -> None:
    settings = Model(backbone="squeezenet1_0")
    model = create_model(settings, 1, 1)
    assert set(rates_of(model, Train(max_rate=0.3)).values()) == {0.3}
    with pytest.raises(UserError, match=r"train\.layer_decay.*SliceClassifier does not tell"):
        parameter_groups(model, Train(layer_decay=0.9))


def rates(steps: int, **settings: object) -> list[float]:
    """The rates that so many steps take."""
    optimizer = torch.optim.AdamW(nn.Linear(1, 1).parameters(), lr=2.0)
    schedule = rate_schedule(optimizer, Train(**settings), steps)  # type: ignore[arg-type]
    taken = []
    for _ in range(steps):
        taken.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return taken


def test_cosine_warms_up_and_falls() -> None:
    taken = rates(100, schedule="cosine", warmup=0.2)
    assert taken[20] == pytest.approx(2.0)
    assert 0 < taken[0] < 0.11
    assert taken[:21] == pytest.approx([2.0 * (step + 1) / 21 for step in range(21)])
    assert taken[60] == pytest.approx(1.0)
    assert all(one > other for one, other in pairwise(taken[20:]))
    assert 0 < taken[-1] < 0.01
    assert rates(1, schedule="cosine") == [2.0]


def test_each_group_comes_to_its_own_rate() -> None:
    layers = [nn.Linear(1, 1), nn.Linear(1, 1)]
    groups = [{"params": list(layer.parameters()), "lr": rate} for layer, rate in zip(layers, (0.5, 2.0), strict=True)]
    for name in ("one_cycle", "cosine"):
        optimizer = torch.optim.AdamW([dict(group) for group in groups])
        schedule = rate_schedule(optimizer, Train(schedule=name), 50)
        seen = []
        for _ in range(49):
            optimizer.step()
            schedule.step()
            seen.append(schedule.get_last_lr())
        assert max(seen) == pytest.approx([0.5, 2.0], rel=0.01)
        assert all(other == pytest.approx(4 * one) for one, other in seen)
