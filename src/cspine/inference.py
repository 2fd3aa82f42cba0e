"""Runs loaded from their weights, and what a decoded study looks like to them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from cspine.bundle import Bundle, FoldModel, Member, describe_fold, describe_run
from cspine.config import Config, Preprocess
from cspine.data.decode import DecodedStudy
from cspine.data.slices import channels
from cspine.errors import UserError, refuse
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


def load_run(oof: Path, name: str, device: torch.device, alone: bool = True) -> LoadedMember:
    """A run of oof/: its model of all data where that is trained, else all its trained folds.

    Raises UserError for a run that cannot stand `alone`, because its background mask is learned from another.
    """
    member = describe_run(oof, name)
    if alone and (settings := member.typed_config().preprocess).mask == "learned":
        raise UserError(f"{name}: its background mask comes from {settings.mask_run}; a run without one can be drawn")
    return load_member(member, Bundle(oof, (), (), {}), device)


def load_fold(oof: Path, name: str, fold: int, device: torch.device) -> LoadedMember:
    """One fold of a run of oof/, for cached studies that were held out of it."""
    return load_member(describe_fold(oof, name, fold), Bundle(oof, (), (), {}), device)


def study_images(study: DecodedStudy, settings: Preprocess) -> StudyImages:
    """What tasks infer from, of a study that could be decoded."""
    assert study.geometry is not None
    geometry = study.geometry
    return StudyImages(study.volumes[settings], geometry.z_mm, geometry.spacing_mm, thickness_mm=geometry.thickness_mm)


def load_member(
    member: Member, bundle: Bundle, device: torch.device, complain: Callable[[str], object] = refuse
) -> LoadedMember:
    """A run with those of its models that load, each checked by its SHA-256; of the others `complain` hears why."""
    config = member.typed_config()
    models, facts = [], []
    for fold in member.models:
        try:
            models.append(_load_model(config, bundle, fold).to(device).eval())
        except (UserError, OSError, RuntimeError, ImportError, SafetensorError) as error:
            # ImportError: an older machine may lack what one kind of model needs.
            complain(f"{config.name}, {fold.fold}: {error}")
        else:
            facts.append(fold.facts)
    return LoadedMember(config, tuple(models), tuple(facts))


def _load_model(config: Config, bundle: Bundle, fold: FoldModel) -> nn.Module:
    outputs = find_task(config.task).outputs
    model = create_model(config.model, channels(config), outputs, pretrained=False)
    file = bundle.weights(fold)
    try:
        model.load_state_dict(load_file(file))
    except RuntimeError as error:
        raise UserError(f"{file}: does not fit {config.model.backbone} ({str(error).splitlines()[0]})") from error
    return model
