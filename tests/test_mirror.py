"""The mean with the mirror image is the same for both, in tests only, and by the key that the model has."""

from dataclasses import replace

import pytest
import torch

from cspine.config import Model
from cspine.errors import UserError
from cspine.models.registry import create_model

FLIPPING = {
    "slice_classifier": (Model(backbone="test_resnet"), (2, 3, 32, 32), None),
    "presence_classifier": (Model(backbone="test_resnet"), (2, 3, 32, 32), (2, 7)),
    "attribute_classifier": (Model(backbone="test_resnet"), (2, 3, 32, 32), (2, 3)),
    "volume_classifier": (Model(width=4), (2, 3, 32, 32, 32), None),
    "level_volume_classifier": (Model(width=4), (2, 16, 4, 32, 32), None),
}


@pytest.mark.parametrize("name", FLIPPING)
def test_an_image_and_its_mirror_image_are_judged_alike(name: str) -> None:
    settings, shape, attributes = FLIPPING[name]
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    others = () if attributes is None else (torch.rand(attributes, generator=generator),)
    models = []
    for flips in (False, True):
        torch.manual_seed(0)
        models.append(create_model(replace(settings, name=name, dropout=0.0, flip_at_test=flips), 3, 1).eval())
    plain, both = models
    with torch.inference_mode():
        mean = (plain(images, *others) + plain(images.flip(-1), *others)) / 2
        assert torch.allclose(both(images, *others), mean, atol=1e-5)
        assert not torch.allclose(plain(images, *others), mean, atol=1e-5)
        assert torch.allclose(both.train()(images, *others), plain.train()(images, *others), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "outputs", "told"),
    [("sequence_classifier", 1, r"and model\.sequence\.flip_at_test"), ("study_classifier", 8, r"model\.sequence"),
     ("plain_unet", 7, "set it to false$"), ("inflated_unet", 7, "set it to false$")],
)  # fmt: skip
def test_a_model_that_does_not_flip_by_this_key_says_so(name: str, outputs: int, told: str) -> None:
    with pytest.raises(UserError, match=told):
        create_model(Model(name=name, backbone="test_resnet", flip_at_test=True), 1, outputs)
