"""The three detectors: shapes in training and at test, and that each learns to find a bright square."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from cspine.config import Model
from cspine.errors import UserError
from cspine.localisation import box_iou
from cspine.models.detector import KEPT
from cspine.models.registry import create_model

DETECTORS = ("faster_rcnn", "rfcn", "ssd")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Images this small gain nothing from a second, and what is learned then depends on the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def model(name: str, backbone: str = "test_byobnet") -> torch.nn.Module:
    torch.manual_seed(0)
    return create_model(Model(name=name, backbone=backbone), 3, 1)


def squares(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (n, 3, 64, 80) of noise, half of them with a bright square, and its corners."""
    rng = np.random.default_rng(seed)
    images, boxes = rng.integers(60, 120, (count, 3, 64, 80)).astype(np.uint8), np.full((count, 4), np.nan, np.float32)
    for number in range(0, count, 2):
        x, y, side = rng.integers(4, 44), rng.integers(4, 30), rng.integers(22, 32)
        images[number, :, y : y + side, x : x + side] += 100
        boxes[number] = x, y, x + side, y + side
    return torch.from_numpy(images), torch.from_numpy(boxes)


@pytest.mark.parametrize("name", DETECTORS)
def test_images_without_a_box_cost_something_too_and_the_parts_are_a_tensor(name: str) -> None:
    made, (images, boxes) = model(name), squares(4, 0)
    parts = made(images, boxes)
    assert parts.ndim == 1
    assert torch.isfinite(parts).all()
    none = made(images[1::2], boxes[1::2])
    assert float(none.sum().detach()) > 0
    none.sum().backward()
    found = made.eval()(images)
    assert found.shape == (4, KEPT * 5)
    scores = found.view(4, KEPT, 5)[..., 4].detach()
    assert torch.equal(scores, scores.sort(dim=1, descending=True).values)
    assert ((scores >= 0) & (scores <= 1)).all()


@pytest.mark.parametrize("name", DETECTORS)
def test_it_learns_where_a_square_is(name: str) -> None:
    made = model(name)
    optimiser = torch.optim.AdamW(made.parameters(), 3e-3)
    images, boxes = squares(64, 1)
    for step in range(90):
        chosen = torch.arange(8) + 8 * (step % 8)
        loss = made(images[chosen], boxes[chosen]).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    images, boxes = squares(16, 2)
    with torch.inference_mode():
        found = made.eval()(images).view(16, KEPT, 5)
    best = found[:, 0].numpy()
    corners = np.concatenate([best[:, :2], best[:, 2:4] - best[:, :2]], axis=1)
    true = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    overlaps = [box_iou(corners[k][None], true[k][None])[0, 0] for k in range(0, 16, 2)]
    assert np.mean(overlaps) > 0.4
    assert (best[0::2, 4] > best[1::2, 4].max()).sum() >= 6


@pytest.mark.parametrize("name", DETECTORS)
def test_an_encoder_without_the_maps_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"model\.backbone=alexnet: gives no maps at strides of 8, 16 and 32"):
        model(name, "alexnet")
