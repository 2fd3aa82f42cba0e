"""Cached studies as their own fold's model of a run sees them: the images, and stage 1's levels from out of fold."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch

from cspine.config import Config, DatasetConfig
from cspine.data.cache import CachedStudy
from cspine.inference import LoadedMember, load_fold
from cspine.level_maps import map_files, run_level_map
from cspine.tasks.base import StudyImages, run_folder
from cspine.tasks.fracture_slice import read_presence


def load_placed_fold(name: str, fold: int, config: DatasetConfig, device: torch.device) -> LoadedMember:
    """One fold of a run of `paths.oof`; its config points at the folders of `config`, wherever it was trained."""
    member = load_fold(Path(config.paths.oof), name, fold, device)
    return replace(member, config=placed(member.config, config))


def placed(own: Config, config: DatasetConfig) -> Config:
    """A run's own config at the folders of `config`, wherever it was trained."""
    return replace(own, paths=config.paths, data=replace(own.data, root=config.data.root))


def out_of_fold_presence(config: Config) -> Mapping[str, np.ndarray]:
    """Stage 1's probabilities (slices, 7) of every study; empty for a run without a stage 1."""
    return read_presence(config) if config.stage1 else {}


def out_of_fold_images(study: CachedStudy, config: Config, presence: np.ndarray | None) -> StudyImages:
    """What a run with this config infers from, with out-of-fold levels of stage 1 as in training."""
    geometry = study.geometry
    images = StudyImages(np.array(study.volume), geometry.z_mm, geometry.spacing_mm, thickness_mm=geometry.thickness_mm)
    if config.stage1 is None:
        return images
    run = run_folder(config, config.stage1)
    has_map = bool(map_files(run, study.uid))
    return images.with_stage1(
        presence, cache(partial(run_level_map, run, study.uid, geometry.z_mm)) if has_map else None
    )
