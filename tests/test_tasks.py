"""What the tasks' losses make of the soft targets of mixup."""

from types import SimpleNamespace

import pytest
import torch

from cspine.config import Train
from cspine.tasks.base import find_task

TARGETS = {"vertebra/image": ("presence", 7), "fracture/slice": ("fractured", None)}


def loss(task: str, outputs: torch.Tensor, target: torch.Tensor) -> float:
    """The loss of a batch times the weight of its samples."""
    config = SimpleNamespace(train=Train(positive_weight=3.0))
    name, levels = TARGETS[task]
    mean = find_task(task).loss(SimpleNamespace(config=config), outputs, {name: target})  # type: ignore[arg-type]
    return float(mean) * (len(target) if levels else float((1 + 2 * target).sum()))


@pytest.mark.parametrize("task", TARGETS)
def test_the_loss_of_mixed_targets_is_the_mix_of_the_losses(task: str) -> None:
    generator = torch.Generator().manual_seed(0)
    levels = TARGETS[task][1]
    shape = (6, levels) if levels else (6,)
    outputs = torch.randn((6, levels or 1), generator=generator)
    one, other = (torch.randint(0, 2, shape, generator=generator).float() for _ in range(2))
    mixed = loss(task, outputs, torch.lerp(one, other, 0.3))
    assert mixed == pytest.approx(0.7 * loss(task, outputs, one) + 0.3 * loss(task, outputs, other), rel=1e-5)


@pytest.mark.parametrize("task", ["fracture/multimodal", "fracture/multitask"])
def test_presence_weighted_losses_mix_too(task: str) -> None:
    generator = torch.Generator().manual_seed(1)
    outputs = torch.randn((6, find_task(task).outputs), generator=generator)
    ones, others = (
        {"fractured": v * y, "sound": v * (1 - y)}
        for v, y in (torch.rand((2, 6, 7), generator=generator).unbind() for _ in range(2))
    )
    config = SimpleNamespace(train=Train(positive_weight=3.0))

    def total(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        mean = find_task(task).loss(SimpleNamespace(config=config), outputs, batch)  # type: ignore[arg-type]
        weight = (3 * batch["fractured"] + batch["sound"]).sum()
        presence = batch["fractured"] + batch["sound"]
        vertebrae = torch.nn.functional.binary_cross_entropy_with_logits(outputs[:, -7:], presence)
        return (mean - (vertebrae if task == "fracture/multitask" else 0)) * weight

    mixed = total({name: torch.lerp(ones[name], others[name], 0.3) for name in ones})
    assert float(mixed) == pytest.approx(float(0.7 * total(ones) + 0.3 * total(others)), rel=1e-4)


def test_a_fractured_slice_weighs_as_the_config_says() -> None:
    outputs, target = torch.tensor([[0.5], [-1.0]]), torch.tensor([1.0, 0.0])
    softplus = torch.nn.functional.softplus(torch.tensor([-0.5, -1.0]))
    assert loss("fracture/slice", outputs, target) == pytest.approx(float(3 * softplus[0] + softplus[1]))
