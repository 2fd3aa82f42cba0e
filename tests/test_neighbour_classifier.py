"""Deep k-nearest-neighbours: the loss against its definition, the vote, and a bank that travels with the weights."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize

from cspine.config import Model, Neighbours
from cspine.models.neighbour_classifier import NeighbourClassifier, neighbour_loss
from cspine.models.registry import create_model


def model(**changes: object) -> NeighbourClassifier:
    torch.manual_seed(0)
    neighbours = Neighbours(width=4, **changes)  # type: ignore[arg-type]
    return create_model(Model(name="neighbour_classifier", width=4, neighbours=neighbours), 1, 1).eval()  # type: ignore[return-value]


def directions(*degrees: float) -> torch.Tensor:
    """Embeddings (n, 4) at these angles in one plane."""
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin(), torch.zeros(len(angles)), torch.zeros(len(angles))], dim=1)


def reference(embeddings: np.ndarray, fractured: np.ndarray, same: int, other: int, margin: float) -> float:
    """The definition, one pair at a time."""
    terms = []
    for i, anchor in enumerate(embeddings):
        distance = ((embeddings - anchor) ** 2).sum(axis=1)
        near = sorted(distance[j] for j in range(len(embeddings)) if j != i and fractured[j] == fractured[i])[:same]
        far = sorted(distance[j] for j in range(len(embeddings)) if fractured[j] != fractured[i])[:other]
        terms += [max(0.0, margin + n - f) for n, f in itertools.product(near, far)]
    return float(np.mean(terms)) if terms else 0.0


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 9),
    share=st.floats(0, 1),
    same=st.integers(1, 4),
    other=st.integers(1, 4),
)
def test_the_loss_is_its_definition(seed: int, count: int, share: float, same: int, other: int) -> None:
    rng = np.random.default_rng(seed)
    embeddings = normalize(torch.from_numpy(rng.normal(size=(count, 5))), dim=1)
    fractured = (rng.random(count) < share).astype(np.float32)
    chosen = Neighbours(same=same, other=other, margin=0.5)
    loss = neighbour_loss(embeddings, torch.from_numpy(fractured), chosen)
    assert float(loss) == pytest.approx(reference(embeddings.numpy(), fractured, same, other, 0.5), abs=1e-6)


def test_a_batch_of_one_class_costs_nothing_and_has_gradients_that_are_numbers() -> None:
    for fractured in (torch.ones(4), torch.tensor([1.0, 0.0, 0.0, 1.0])):
        raw = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
        loss = neighbour_loss(normalize(raw, dim=1), fractured, Neighbours(same=2, other=3))
        loss.backward()
        assert raw.grad is not None
        assert torch.isfinite(raw.grad).all()
        assert bool(loss > 0) == (fractured.sum() == 2) == bool((raw.grad != 0).any())


def test_descent_parts_the_classes() -> None:
    raw = torch.randn(12, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
    fractured = (torch.arange(12) % 2).float()
    optimizer = torch.optim.Adam([raw], lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        loss = neighbour_loss(normalize(raw, dim=1), fractured, Neighbours(same=2, other=2, margin=0.5))
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.01
    made = model(voters=3)
    made.remember(raw.detach(), fractured)
    assert ((made.judge(normalize(raw.detach(), dim=1)) > 0.5) == (fractured > 0)).all()


def test_the_nearest_vote_and_the_nearer_have_more_weight() -> None:
    made = model(voters=3, fade=0.2)
    made.remember(5 * directions(0, 20, 40, 180, 190), torch.tensor([1, 0, 0, 1, 1]))  # of any length
    prior = (3 + 1) / (5 + 2)
    distance = 2 - 2 * torch.tensor([0.0, 20.0, 40.0]).deg2rad().cos()
    weights = (-distance / 0.2).exp()
    expected = (3 * weights[0] / weights.sum() + prior) / 4
    assert float(made.judge(directions(0))[0]) == pytest.approx(float(expected), rel=1e-4)
    by_angle = made.judge(directions(0, 10, 20, 30))
    assert (by_angle.diff() < 0).all()
    certain = made.judge(directions(185))
    everyone = replace(made.settings, voters=99)
    made.settings = everyone
    assert float(made.judge(directions(185))[0]) == pytest.approx((5 * float(certain[0] > 0.5) + prior) / 6, abs=0.01)


def test_no_probability_is_certain_whatever_the_bank() -> None:
    made = model()
    for label in (0, 1):
        made.remember(directions(0, 10, 20), torch.full((3,), label))
        judged = made.judge(directions(5, 100))
        assert ((judged > 0.001) & (judged < 0.999)).all()
        assert torch.isfinite(made(torch.zeros(2, 16, 2, 32, 32, dtype=torch.uint8))).all()


def test_it_gives_embeddings_in_training_and_logits_else() -> None:
    made = model()
    images = torch.randint(0, 256, (3, 16, 2, 32, 32), dtype=torch.uint8)
    with pytest.raises(ValueError, match="`remember`"):
        made(images)
    made.remember(directions(0, 90), torch.tensor([0, 1]))
    assert made(images).shape == (3, 1)
    embeddings = made.train()(images)
    assert embeddings.shape == (3, 4)
    assert torch.allclose(embeddings.norm(dim=1), torch.ones(3), atol=1e-5)


def test_the_bank_is_saved_with_the_weights(tmp_path: Path) -> None:
    made = model()
    made.remember(directions(0, 30, 90), torch.tensor([0, 1, 1]))
    file = tmp_path / "weights.safetensors"
    save_file({key: value.contiguous() for key, value in made.state_dict().items()}, file)
    other = model()
    other.load_state_dict(load_file(file))
    images = torch.randint(0, 256, (2, 16, 2, 32, 32), dtype=torch.uint8)
    assert torch.equal(made(images), other(images))
    other.load_state_dict(model().state_dict())
    assert len(other.bank) == 0


def test_it_judges_one_thing() -> None:
    with pytest.raises(ValueError, match="one thing a level"):
        create_model(Model(name="neighbour_classifier"), 1, 7)
