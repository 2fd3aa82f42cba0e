"""The recurrent classifier: the same of images and of their features, blind to what is not there, frozen below."""

import pytest
import torch

from cspine.config import Model, Sequence
from cspine.models.recurrent_classifier import RecurrentClassifier
from cspine.models.registry import create_model


def model(recurrent: str = "gru", dropout: float = 0.0) -> RecurrentClassifier:
    torch.manual_seed(0)
    sequence = Sequence(recurrent=recurrent, hidden=8)
    settings = Model(name="recurrent_classifier", backbone="test_resnet", dropout=dropout, sequence=sequence)
    return create_model(settings, 3, 8).eval()  # type: ignore[return-value]


def study(slices: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (2, slices, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return images, torch.rand(2, slices, 7, generator=generator), torch.ones(2, slices)


@pytest.mark.parametrize("recurrent", ["gru", "lstm", "none"])
def test_images_and_what_the_encoder_makes_of_them_give_the_same(recurrent: str) -> None:
    made, (images, presence, there) = model(recurrent), study()
    with torch.inference_mode():
        whole = made(images, presence, there)
        features = made.encoder(images.flatten(0, 1)).view(2, 6, -1)
        assert whole.shape == (2, 8)
        assert features.dtype == torch.float16
        assert torch.allclose(made(features, presence, there), whole, atol=1e-6)


@pytest.mark.parametrize("recurrent", ["gru", "lstm", "none"])
def test_slices_that_are_not_there_change_nothing(recurrent: str) -> None:
    made, (images, presence, there) = model(recurrent), study(9)
    there[0, 6:] = 0
    with torch.inference_mode():
        cut = made(images[:1, :6], presence[:1, :6], there[:1, :6])
        assert torch.allclose(made(images, presence, there)[:1], cut, atol=1e-5)
        other = made(images, presence, torch.ones(2, 9))
    assert not torch.allclose(other[:1], cut, atol=1e-3)


def test_stage1_and_the_order_of_the_slices_matter() -> None:
    made, (images, presence, there) = model(), study()
    with torch.inference_mode():
        plain = made(images, presence, there)
        assert not torch.allclose(made(images, presence.flip(-1), there), plain, atol=1e-4)
        assert not torch.allclose(made(images.flip(1), presence.flip(1), there), plain, atol=1e-4)


def test_each_output_has_its_own_attention() -> None:
    made, (images, presence, there) = model("none"), study()
    with torch.no_grad():
        made.head.weight[:] = made.head.weight[0].clone()
        made.head.bias[:] = 0
    logits = made(images, presence, there)
    assert (logits[:, 1:] - logits[:, :1]).abs().min() > 1e-5


def test_training_leaves_the_encoder_as_it_is() -> None:
    made, (images, presence, there) = model(), study()
    before = {name: value.clone() for name, value in made.encoder.state_dict().items()}
    made.train()
    assert not any(module.training for module in made.encoder.modules())
    optimizer = torch.optim.AdamW(made.parameters(), lr=0.1, weight_decay=0.1)
    made(images, presence, there).sum().backward()
    optimizer.step()
    assert all(torch.equal(before[name], value) for name, value in made.encoder.state_dict().items())
    assert all(value.grad is not None for name, value in made.named_parameters() if not name.startswith("encoder."))
