"""The encoder that asks cells: its features, what weights it starts from, and which models take it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cspine.config import Model
from cspine.errors import UserError
from cspine.models.backbones import create_backbone, feature_count
from cspine.models.cells import CellEncoder, create_encoder
from cspine.models.registry import create_model

SETTINGS = Model(backbone="test_resnet", cells=True)


def images(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 48, 48, generator=torch.Generator().manual_seed(0))


def encoder(seed: int = 0) -> CellEncoder:
    torch.manual_seed(seed)
    made = create_encoder(SETTINGS, 3).eval()
    assert isinstance(made, CellEncoder)
    return made


def save(model: torch.nn.Module, file: Path, prefix: str = "") -> Path:
    save_file({prefix + key: value.contiguous() for key, value in model.state_dict().items()}, file)
    return file


def test_features_are_the_backbones_and_those_of_cells() -> None:
    made = encoder()
    features, cells = made.look(images())
    assert features.shape == (2, feature_count(made))
    assert cells.shape == (2, 6, 6)
    whole = made.backbone(images())
    assert torch.allclose(features[:, : whole.shape[1]], whole, atol=1e-5)
    assert torch.equal(features[:, -1], cells.flatten(1).amax(dim=1))


def test_one_cell_that_answers_is_seen_in_the_features() -> None:
    # What distinguishes it from a mean over the image: one bright corner is most of what the features tell.
    made = encoder()
    marked = images(1)
    marked[:, :, :8, :8] = 1 - marked[:, :, :8, :8]
    before, after = made.look(images(1))[1], made.look(marked)[1]
    changed = (before - after).abs()[0]
    assert changed[0, 0] > 3 * changed[3:, 3:].mean()


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_cells_and_backbone_start_from_a_file(tmp_path: Path, prefix: str) -> None:
    source = encoder(1)
    file = save(source, tmp_path / "e.safetensors", prefix)
    taken = create_encoder(replace(SETTINGS, pretrained=str(file)), 3).eval()
    assert torch.equal(taken(images()), source(images()))
    # Other models take the backbone alone.
    plain = create_backbone(Model(backbone="test_resnet", pretrained=str(file)), 3).eval()
    assert torch.equal(plain(images()), source.backbone(images()))


def test_a_file_that_knows_no_cells_gives_the_backbone(tmp_path: Path) -> None:
    source = create_backbone(replace(SETTINGS, cells=False), 3).eval()
    file = save(source, tmp_path / "e.safetensors")
    taken = create_encoder(replace(SETTINGS, pretrained=str(file)), 3).eval()
    assert torch.equal(taken.backbone(images()), source(images()))  # type: ignore[operator]


def test_cells_of_another_backbone_are_refused(tmp_path: Path) -> None:
    source = create_encoder(replace(SETTINGS, backbone="test_byobnet"), 3)
    file = save(source, tmp_path / "e.safetensors")
    with pytest.raises(UserError, match="does not fit test_resnet"):
        create_encoder(replace(SETTINGS, pretrained=str(file)), 3)


@pytest.mark.parametrize(("name", "outputs"), [("slice_classifier", 7), ("presence_classifier", 7)])
def test_heads_on_slices_learn_their_cells(name: str, outputs: int) -> None:
    made = create_model(replace(SETTINGS, name=name), 3, outputs)
    inputs = [torch.randint(0, 255, (2, 3, 48, 48), dtype=torch.uint8), torch.rand(2, 7)]
    made(*inputs[: 1 + (name == "presence_classifier")]).sum().backward()
    gradient = made.get_parameter("backbone.logit.weight").grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("name", ["ssd", "inflated_unet", "plain_unet"])
def test_models_that_cannot_use_cells_say_so(name: str) -> None:
    with pytest.raises(UserError, match=f"model.cells=true: {name} has no use for them"):
        create_model(replace(SETTINGS, name=name, backbone="resnet18"), 3, 1)
