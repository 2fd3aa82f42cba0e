"""The study classifier: its shapes, levels that are missing, the patient's own head, and gradients computed again."""

from dataclasses import replace

import pytest
import torch

from cspine.config import Model, Sequence
from cspine.errors import UserError
from cspine.models.registry import create_model

SETTINGS = Model(name="study_classifier", backbone="test_resnet", dropout=0.0, sequence=Sequence(hidden=8, clearest=2))


def made(settings: Model = SETTINGS) -> torch.nn.Module:
    torch.manual_seed(0)
    return create_model(settings, 1, 8).eval()


def patients() -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.randint(0, 256, (3, 7, 4, 2, 32, 32), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    found = torch.ones(3, 7)
    found[0, 2], found[1, 1:], found[2] = 0, 0, 0
    return images, found


@pytest.mark.parametrize("overall", ["attention", "max"])
def test_missing_levels_change_nothing_of_what_is_said(overall: str) -> None:
    model = made(replace(SETTINGS, sequence=replace(SETTINGS.sequence, overall=overall)))
    images, found = patients()
    changed = images.clone()
    changed[found == 0] = 255 - changed[found == 0]
    with torch.inference_mode():
        outputs, again = model(images, found), model(changed, found)
        seen = images.clone()
        seen[0, 3] = 255 - seen[0, 3]
        other = model(seen, found)
    assert outputs.shape == (3, 8 + 7 * 4)
    assert torch.isfinite(outputs).all()
    assert torch.allclose(outputs, again, atol=1e-6)
    assert (outputs[:, 1:8] != 0).equal(found > 0)
    assert (outputs[:, 8:].view(3, 7, 4) != 0).all(dim=2).equal(found > 0)
    # A level that is found reaches its own logit and the patient's, and no other.
    difference = (other - outputs)[0, :8].abs() > 1e-6
    assert difference.nonzero().flatten().tolist() in ([0, 4], [4])
    assert overall == "max" or difference[0]


def test_a_level_is_judged_as_the_sequence_classifier_judges_it() -> None:
    model, (images, found) = made(), patients()
    alone = create_model(replace(SETTINGS, name="sequence_classifier"), 1, 1).eval()
    alone.load_state_dict({key: value for key, value in model.state_dict().items() if key in alone.state_dict()})
    with torch.inference_mode():
        together, one = model(images, found), alone(images[0, 4:6])
    assert torch.allclose(together[0, 5:7], one[:, 0], atol=1e-5)
    assert torch.allclose(together[0, 8:].view(7, 4)[4:6], one[:, 1:], atol=1e-5)


@pytest.mark.parametrize("name", ["study_classifier", "sequence_classifier"])
def test_gradients_are_equal_with_and_without_checkpointing(name: str) -> None:
    images, found = patients()
    inputs = (images, found) if name == "study_classifier" else (images[0],)
    outputs = 8 if name == "study_classifier" else 1
    gradients, kept = [], []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        settings = replace(SETTINGS, name=name, checkpointing=checkpointing)
        model = create_model(settings, 1, outputs).train()
        sizes: list[int] = []

        def keep(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = model(*inputs).square().mean()
        kept.append(sum(sizes))
        loss.backward()
        gradients.append({name: weight.grad for name, weight in model.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for weight, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][weight]), weight
    # The stem keeps what it did; it lies before the blocks.
    assert kept[1] < 0.75 * kept[0]


def test_checkpointing_of_what_has_none_is_refused() -> None:
    with pytest.raises(UserError, match=r"alexnet cannot compute its blocks again"):
        create_model(replace(SETTINGS, backbone="alexnet", checkpointing=True), 1, 8)


def test_the_mean_with_the_mirror_image_is_the_same_for_both() -> None:
    model = made(replace(SETTINGS, sequence=replace(SETTINGS.sequence, flip_at_test=True)))
    images, found = patients()
    with torch.inference_mode():
        assert torch.allclose(model(images, found), model(images.flip(-1), found), atol=1e-5)


def test_it_judges_the_patient_and_seven_levels() -> None:
    with pytest.raises(ValueError, match="7 levels"):
        create_model(SETTINGS, 1, 7)
