"""The sequence classifier: its shapes, its poolings, its recurrence, and the mean with the mirror image."""

from dataclasses import replace

import pytest
import torch

from cspine.config import Model, Sequence
from cspine.errors import UserError
from cspine.models.registry import create_model
from cspine.models.sequence_classifier import SequenceClassifier


def model(cells: bool = False, **settings: object) -> SequenceClassifier:
    torch.manual_seed(0)
    sequence = Sequence(hidden=8, **settings)  # type: ignore[arg-type]
    made = Model(name="sequence_classifier", backbone="test_resnet", cells=cells, sequence=sequence)
    return create_model(made, 3, 1).eval()  # type: ignore[return-value]


def levels(images: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (2, images, 4, 32, 32), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("recurrent", ["lstm", "gru", "none"])
@pytest.mark.parametrize("pooling", ["clearest", "max", "attention"])
def test_a_level_and_each_of_its_images_get_a_logit(recurrent: str, pooling: str) -> None:
    outputs = model(recurrent=recurrent, pooling=pooling)(levels())
    assert outputs.shape == (2, 7)
    assert torch.isfinite(outputs).all()


def test_the_level_is_the_mean_of_its_clearest_images() -> None:
    outputs = model(clearest=2)(levels()).sigmoid()
    assert torch.allclose(outputs[:, 0], outputs[:, 1:].topk(2).values.mean(1), atol=1e-6)
    outputs = model(clearest=9)(levels()).sigmoid()
    assert torch.allclose(outputs[:, 0], outputs[:, 1:].mean(1), atol=1e-6)
    outputs = model(pooling="max")(levels())
    assert torch.allclose(outputs[:, 0], outputs[:, 1:].max(1).values, atol=1e-4)


def test_attention_lies_between_the_images_and_is_learned() -> None:
    made = model(pooling="attention")
    outputs = made(levels())
    assert (outputs[:, 0] <= outputs[:, 1:].max(1).values).all()
    assert (outputs[:, 0] >= outputs[:, 1:].min(1).values).all()
    outputs[:, 0].sum().backward()
    assert made.attention is not None
    assert made.attention.weight.grad is not None
    assert made.attention.weight.grad.abs().sum() > 0


def test_an_image_knows_of_those_before_and_after_it_only_by_recurrence() -> None:
    images = levels()
    changed = images.clone()
    changed[:, 0] = 255 - changed[:, 0]
    with torch.inference_mode():
        for recurrent, reaches in (("lstm", True), ("none", False)):
            made = model(recurrent=recurrent)
            difference = (made(changed) - made(images)).abs()
            assert difference[:, 1].min() > 0
            assert bool((difference[:, 3] > 0).all()) == reaches
            reverse = (made(images.flip(1)) - made(images)).abs()[:, 0]
            assert bool((reverse > 1e-5).all()) == reaches


def test_the_mean_with_the_mirror_image_is_for_tests_only() -> None:
    with torch.inference_mode():
        plain, both = model(), model(flip_at_test=True)
        images = levels()
        assert torch.allclose(both(images), (plain(images) + plain(images.flip(-1))) / 2, atol=1e-5)
        assert torch.allclose(both(images), both(images.flip(-1)), atol=1e-5)
    settings = replace(both.settings, flip_at_test=False)
    assert settings == plain.settings


def test_it_judges_one_thing() -> None:
    with pytest.raises(ValueError, match="one thing a level"):
        create_model(Model(name="sequence_classifier", backbone="test_resnet"), 3, 7)


def test_cells_follow_the_images_and_feed_them() -> None:
    made = model(cells=True)
    outputs = made(levels())
    assert outputs.shape == (2, 1 + 6 + 6 * 4 * 4)
    outputs[:, 0].sum().backward()
    gradient = made.backbone.logit.weight.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_cells_of_the_mirror_image_are_turned_back() -> None:
    plain, both = model(cells=True), model(cells=True, flip_at_test=True)
    with torch.inference_mode():
        here, there = plain(levels())[:, 7:].view(2, 6, 4, 4), plain(levels().flip(-1))[:, 7:].view(2, 6, 4, 4)
        mean = both(levels())[:, 7:].view(2, 6, 4, 4)
    assert torch.allclose(mean, (here + there.flip(-1)) / 2, atol=1e-5)
    assert not torch.allclose(mean, (here + there) / 2, atol=1e-3)


def test_an_encoder_without_such_a_map_is_refused() -> None:
    for backbone in ("alexnet", "test_vit"):
        settings = Model(name="sequence_classifier", backbone=backbone, cells=True)
        with pytest.raises(UserError, match=f"cells=true: {backbone} gives no map at stride 8"):
            create_model(settings, 3, 1)


def test_what_a_cell_shows_its_image_and_level_show() -> None:
    made = model(cells=True, recurrent="none")
    with torch.inference_mode():
        before = made(levels())
        made.backbone.logit.bias += 3.0  # type: ignore[operator]
        after = made(levels())
    assert torch.allclose(after[:, 7:] - before[:, 7:], torch.tensor(3.0), atol=1e-4)
    assert (after[:, :7] > before[:, :7] + 1).all()
