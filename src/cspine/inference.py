"""A study folder in, probabilities out: the one piece of code behind src/predict.py and the kernel."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from cspine.blend import Blend
from cspine.bundle import Bundle, FoldModel, Member, describe_fold, describe_run
from cspine.config import Config, Preprocess
from cspine.data.background import keep_spine
from cspine.data.decode import DecodedStudy
from cspine.data.slices import channels
from cspine.errors import UserError
from cspine.level_maps import LevelMap
from cspine.models.registry import create_model
from cspine.tasks.base import StudyImages, find_task


@dataclass(frozen=True)
class LoadedMember:
    """A run ready to predict: the mean of its models."""

    config: Config
    models: tuple[nn.Module, ...]
    facts: tuple[dict[str, Any], ...]

    def infer(self, images: StudyImages, device: torch.device) -> np.ndarray:
        return find_task(self.config.task).infer(self.models, self.config, images, self.facts, device)

    def map_levels(self, images: StudyImages, device: torch.device) -> LevelMap:
        """Where the levels are in space. Raises UserError for a run whose task knows slices only."""
        make = getattr(find_task(self.config.task), "map_levels", None)
        if make is None:
            raise UserError(f"{self.config.name}: {self.config.task} makes no level maps; use a run of vertebra/volume")
        return make(self.models, self.config, images, device)


class Predictor:
    """All models of a bundle, loaded once."""

    def __init__(self, bundle: Bundle, device: torch.device) -> None:
        self.device = device
        self.blend = Blend.from_json(bundle.blend)
        self.stage1 = [_load(member, bundle, device) for member in bundle.stage1]
        self.members = [_load(member, bundle, device) for member in bundle.members]

    @property
    def preprocesses(self) -> list[Preprocess]:
        """The distinct preprocessings that the members were trained on."""
        return list(dict.fromkeys(member.config.preprocess for member in (*self.stage1, *self.members)))

    def predict(self, images_for: Callable[[Preprocess], StudyImages]) -> np.ndarray:
        """The eight probabilities of one study, in the order of anatomy.TARGETS.

        `images_for` gives the study's volume under a preprocessing.
        """
        presence: dict[str, Callable[[], np.ndarray]] = {}
        level_maps: dict[str, Callable[[], LevelMap]] = {}
        for member in self.stage1:
            images = _preprocessed(member.config.preprocess, images_for, level_maps)
            presence[member.config.name] = cache(partial(member.infer, images, self.device))
            level_maps[member.config.name] = cache(partial(member.map_levels, images, self.device))
        members = []
        for member in self.members:
            images, stage1 = _preprocessed(member.config.preprocess, images_for, level_maps), member.config.stage1
            if stage1:
                images = images.with_stage1(presence[stage1](), level_maps[stage1])
            members.append(member.infer(images, self.device))
        return self.blend.apply([member[None] for member in members])[0]


def _preprocessed(
    settings: Preprocess,
    images_for: Callable[[Preprocess], StudyImages],
    level_maps: dict[str, Callable[[], LevelMap]],
) -> StudyImages:
    """The study's images with the step that needs the levels of another run, where the preprocessing has it."""
    images = images_for(settings)
    if settings.mask != "learned" or settings.mask_run is None:
        return images
    return replace(images, volume=keep_spine(images.volume, images.z_mm, level_maps[settings.mask_run](), settings))


def load_run(oof: Path, name: str, device: torch.device) -> LoadedMember:
    """A run of oof/ alone: its model of all data where that is trained, else all its trained folds.

    Raises UserError for a run that cannot stand alone, because its background mask is learned from another.
    """
    member = describe_run(oof, name)
    if (settings := member.typed_config().preprocess).mask == "learned":
        raise UserError(f"{name}: its background mask comes from {settings.mask_run}; a run without one can be drawn")
    return _load(member, Bundle(oof, (), (), {}), device)


def load_fold(oof: Path, name: str, fold: int, device: torch.device) -> LoadedMember:
    """One fold of a run of oof/, for cached studies that were held out of it."""
    return _load(describe_fold(oof, name, fold), Bundle(oof, (), (), {}), device)


def study_images(study: DecodedStudy, settings: Preprocess) -> StudyImages:
    """What tasks infer from, of a study that could be decoded."""
    assert study.geometry is not None
    geometry = study.geometry
    return StudyImages(study.volumes[settings], geometry.z_mm, geometry.spacing_mm, thickness_mm=geometry.thickness_mm)


def _load(member: Member, bundle: Bundle, device: torch.device) -> LoadedMember:
    config = member.typed_config()
    models = tuple(_load_model(config, bundle, model).to(device).eval() for model in member.models)
    return LoadedMember(config, models, tuple(model.facts for model in member.models))


def _load_model(config: Config, bundle: Bundle, fold: FoldModel) -> nn.Module:
    outputs = find_task(config.task).outputs
    model = create_model(config.model, channels(config), outputs, pretrained=False)
    file = bundle.weights(fold)
    try:
        model.load_state_dict(load_file(file))
    except RuntimeError as error:
        raise UserError(f"{file}: does not fit {config.model.backbone} ({str(error).splitlines()[0]})") from error
    return model
