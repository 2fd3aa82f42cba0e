"""The three detectors: shapes, that each learns to find a bright square, and the boxes of several models as one's."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import nms

from cspine.config import Model
from cspine.errors import UserError
from cspine.localisation import box_iou
from cspine.models.detector import KEPT, OVERLAP, fuse
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


def as_found(boxes: list[tuple[int, ...]]) -> np.ndarray:
    """What a model that sees these boxes (left, top, width, height, tenths of a score) says of an image, (KEPT, 5)."""
    rows = np.array(boxes, np.float32).reshape(-1, 5) / [1, 1, 1, 1, 10]
    rows[:, 2:4] += rows[:, :2]
    tensor = torch.from_numpy(rows.astype(np.float32))
    kept = tensor[nms(tensor[:, :4], tensor[:, 4], OVERLAP)[:KEPT]]
    return np.concatenate([kept.numpy(), np.zeros((KEPT - len(kept), 5), np.float32)])


# Small whole numbers, so that boxes and scores are often equal.
PLACE, SIDE, TENTHS = st.integers(0, 8), st.integers(1, 6), st.integers(1, 9)
ONE_MODEL = st.lists(st.tuples(PLACE, PLACE, SIDE, SIDE, TENTHS), max_size=6).map(as_found)


def in_order(boxes: np.ndarray) -> np.ndarray:
    """Boxes (n, 5) in an order of their own."""
    return np.array(sorted(boxes.tolist()))


@settings(max_examples=200, deadline=None)
@given(models=st.lists(ONE_MODEL, min_size=2, max_size=5), data=st.data())
def test_the_order_of_the_models_changes_no_fused_box(models: list[np.ndarray], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(models))
    fused = fuse(np.stack(models)[:, None])
    assert np.array_equal(fused, fuse(np.stack(shuffled)[:, None]))
    assert (np.diff(fused[0, :, 4]) <= 0).all()
    assert fused[0, 0, 4] <= max(one[0, 4] for one in models)


@settings(max_examples=200, deadline=None)
@given(one=ONE_MODEL, count=st.integers(1, 5))
def test_models_that_agree_find_what_one_does(one: np.ndarray, count: int) -> None:
    fused = fuse(np.repeat(one[None, None], count, axis=0))
    assert np.allclose(in_order(fused[0]), in_order(one), atol=1e-6)
    if count == 1:
        assert np.array_equal(in_order(fused[0]), in_order(one))


def test_boxes_about_one_place_become_their_mean_and_a_model_without_it_counts_as_nothing() -> None:
    first = as_found([(0, 0, 10, 10, 8), (40, 40, 10, 10, 6)])
    second = as_found([(2, 0, 10, 10, 4)])
    neither = as_found([])
    fused = fuse(np.stack([first, second, neither])[:, None])
    assert fused.shape == (1, KEPT, 5)
    assert fused[0, 0] == pytest.approx([2 / 3, 0, 10 + 2 / 3, 10, 1.2 / 3], abs=1e-5)
    assert fused[0, 1] == pytest.approx([40, 40, 50, 50, 0.6 / 3], abs=1e-5)
    assert (fused[0, 2:] == 0).all()
    # Images do not mix.
    apart = fuse(np.stack([[first, neither], [neither, second]]))
    assert apart[:, :2, 4] == pytest.approx(np.array([[0.4, 0.3], [0.2, 0.0]]))
    assert fuse(np.zeros((2, 0, KEPT, 5), np.float32)).shape == (0, KEPT, 5)


def test_a_box_clipped_to_nothing_is_left_out_and_no_more_are_kept_than_of_one_model() -> None:
    empty = np.array([[[[5, 5, 5, 9, 0.9], [0, 0, 4, 4, 0.5], *[[0.0] * 5] * (KEPT - 2)]]], np.float32)
    assert fuse(empty)[0, :, 4].tolist() == [0.5, *[0.0] * (KEPT - 1)]
    rows = [as_found([(20 * place + 200 * model, 0, 9, 9, 4 + model) for place in range(KEPT)]) for model in (0, 1)]
    fused = fuse(np.stack(rows)[:, None])
    assert np.allclose(fused[0, :, 4], 0.25)
    assert (fused[0, :, 0] >= 200).all()
