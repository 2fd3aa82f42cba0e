"""A study as the trained models read it: where its levels are, how likely each is fractured, and what moved that."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cspine.anatomy import OVERALL, TARGETS
from cspine.bundle import from_runs
from cspine.calibrations import frequency
from cspine.config import Preprocess
from cspine.data.background import keep_spine
from cspine.data.dicom import load_study
from cspine.data.levels3d import keep_largest, level_labels
from cspine.data.preprocess import Crop, cut, plan_study
from cspine.data.study import Study
from cspine.errors import UserError
from cspine.inference import LoadedMember, load_run
from cspine.lesions import LESION_COLUMNS, find_lesions, levels_by_map
from cspine.level_maps import LevelMap, level_map
from cspine.paths import read_json
from cspine.pictures.planes import spine_place
from cspine.predictor import Predictor
from cspine.report.frame import SPINE_MM, Frame, report_frame
from cspine.report.heat import draw_heat
from cspine.report.levels import LevelReading, read_levels
from cspine.report.surfaces import Surface, level_surfaces
from cspine.tasks.base import LooksAtLevels, StudyImages, find_task

FOUND, SURFACE_AT = 0.5, 0.35
# Where stage 1 knows slices only, the levels are drawn within this box: mm before, behind and beside the bodies.
BEFORE_MM, BEHIND_MM, BESIDE_MM = 16.0, 48.0, 32.0
SLICE_MAP_MM = 4.0


@dataclass(frozen=True, eq=False)
class Reading:
    """What a report shows of a study. Arrays are (z, y, x) on the frame's voxels."""

    name: str
    frame: Frame
    volume_hu: np.ndarray  # int16
    labels: np.ndarray  # uint8, 1 to 7 for C1 to C7
    heat: np.ndarray | None  # float32, 0 to 1
    levels: tuple[LevelReading, ...]
    patient: tuple[float, float] | None  # probability and threshold
    lesions: pd.DataFrame
    surfaces: tuple[Surface | None, ...]
    notes: tuple[str, ...]
    seconds: Mapping[str, float]


class Remembered:
    """A loaded run that infers each study once, however many heads and pictures ask."""

    def __init__(self, member: LoadedMember) -> None:
        self.config, self.member = member.config, member
        self._last: dict[str, tuple[np.ndarray, Any]] = {}

    def infer(self, images: StudyImages, device: torch.device) -> np.ndarray:
        return self._once("infer", images, partial(self.member.infer, images, device))

    def map_levels(self, images: StudyImages, device: torch.device) -> LevelMap:
        return self._once("map", images, partial(self.member.map_levels, images, device))

    def _once(self, what: str, images: StudyImages, make: Callable[[], Any]) -> Any:
        if what not in self._last or self._last[what][0] is not images.volume:
            self._last[what] = images.volume, make()
        return self._last[what][1]


class Reader:
    """The models of `oof/`: the vertebra run that finds the levels and, where an ensemble is made, its heads."""

    def __init__(self, oof: Path, run: str | None, device: torch.device) -> None:
        self.device, self.predictor, self.thresholds = device, None, {}
        if (file := oof / "ensemble" / "blend.json").exists():
            self.predictor = Predictor(from_runs(oof), device)
            self.predictor.stage1 = [Remembered(member) for member in self.predictor.stage1]  # type: ignore[misc]
            self.thresholds = read_json(file)["thresholds"]
        self.finder = self._finder(oof, run)

    def _finder(self, oof: Path, run: str | None) -> Remembered:
        """The run asked for, a stage 1 of the ensemble that maps levels, another that does, or any vertebra run."""
        known: list[Any] = self.predictor.stage1 if self.predictor else []
        if run is not None:
            same = [member for member in known if member.config.name == run]
            return same[0] if same else Remembered(load_run(oof, run, self.device))
        if mapping := [member for member in known if _maps(member.config.task)]:
            return mapping[0]
        others = sorted(path.parents[1].name for path in oof.glob("*/f*/done.json"))
        tasks = {name: read_json(min((oof / name).glob("f*/config.json")))["task"] for name in dict.fromkeys(others)}
        if mapped := [name for name, task in tasks.items() if _maps(task)]:
            return Remembered(load_run(oof, mapped[0], self.device))
        if known:
            return known[0]
        if found := [name for name, task in tasks.items() if task.startswith("vertebra/")]:
            return Remembered(load_run(oof, found[0], self.device))
        raise UserError(f"{oof}: no trained vertebra run; train one with: python src/train.py --fold all")

    def read(
        self,
        path: Path,
        name: str,
        boxes: pd.DataFrame | None = None,
        known: np.ndarray | None = None,
        extra: tuple[str, ...] = (),
    ) -> Reading:
        """A folder of DICOM files or a NIfTI file. Raises StudyError where it cannot be decoded.

        `boxes` are those of the study under tables.FOUND_BOXES, to be joined to lesions. `known` are the eight
        probabilities of a study that was trained on, from out of fold, to stand in the place of the models' own.
        `extra` are notes to put before the others.
        """
        clock = _Clock()
        study = load_study(path)
        clock.stop("decoding")
        views = _Views(study)
        settings = self.finder.config.preprocess
        found = self._find(views, study)
        row = None if self.predictor is None else self.predictor.predict(views.images)
        if known is not None and row is not None:
            row = known
        clock.stop("inference")
        frame = _frame(study, found, views.crop(settings))
        heat = None if row is None else self._heat(row[1:], views, frame)
        clock.stop("heat")
        crop = views.crop(settings)
        volume_hu = frame.sample(study.volume)
        likeliest, probability = frame.sample_map(found, crop)
        labels = keep_largest(np.where(probability > FOUND, likeliest, 0).astype(np.uint8))
        clock.stop("voxels")
        # Processes are thin and maps coarse: surfaces reach further than labels, those of levels that are found.
        regions = np.where((probability > SURFACE_AT) & np.isin(np.arange(8), labels)[likeliest], likeliest, 0)
        regions = keep_largest(regions.astype(np.uint8))
        surfaces = level_surfaces(volume_hu, regions, frame.voxel_mm)
        clock.stop("meshes")
        levels = read_levels(labels, frame, self._told(row), self.thresholds_as_frequency())
        lesions = pd.DataFrame(columns=list(LESION_COLUMNS))
        if boxes is not None and len(boxes):
            lesions = find_lesions(name, boxes, study.geometry, levels_by_map(boxes, study.geometry, found, crop))
        return Reading(
            name, frame, volume_hu, labels, heat, levels, self._patient(row), lesions, tuple(surfaces),
            (*extra, *self._notes(study)), clock.seconds,
        )  # fmt: skip

    def thresholds_as_frequency(self) -> dict[str, float]:
        return {target: float(frequency(np.array(cut))) for target, cut in self.thresholds.items()}

    def _find(self, views: "_Views", study: Study) -> LevelMap:
        settings = self.finder.config.preprocess
        images = self._images(views, settings)
        if _maps(self.finder.config.task):
            return self.finder.map_levels(images, self.device)
        return map_from_slices(self.finder.infer(images, self.device), study, views.crop(settings))

    def _images(self, views: "_Views", settings: Preprocess) -> StudyImages:
        """A study's images with the step that needs the levels of another run, where the preprocessing has it."""
        images = views.images(settings)
        if settings.mask != "learned" or self.predictor is None:
            return images
        source: Any = next(one for one in self.predictor.stage1 if one.config.name == settings.mask_run)
        found = source.map_levels(self._images(views, source.config.preprocess), self.device)
        return replace(images, volume=keep_spine(images.volume, images.z_mm, found, settings))

    def _heat(self, levels: np.ndarray, views: "_Views", frame: Frame) -> np.ndarray | None:
        """By the heaviest head of the blend that can tell; None where none can."""
        assert self.predictor is not None
        weighed = zip(self.predictor.blend.weights, self.predictor.members, strict=True)
        able = [pair for pair in weighed if issubclass(find_task(pair[1].config.task), LooksAtLevels)]
        if not able:
            return None
        member = max(able, key=lambda pair: pair[0])[1]
        settings = member.config.preprocess
        images = self._images(views, settings)
        if stage1 := member.config.stage1:
            source: Any = next(one for one in self.predictor.stage1 if one.config.name == stage1)
            theirs = self._images(views, source.config.preprocess)
            images = images.with_stage1(
                cache(lambda: source.infer(theirs, self.device)), lambda: source.map_levels(theirs, self.device)
            )
        return draw_heat(member, images, frequency(levels), frame, views.crop(settings), self.device)

    def _told(self, row: np.ndarray | None) -> dict[str, float] | None:
        return None if row is None else dict(zip(TARGETS, frequency(row).tolist(), strict=True))

    def _patient(self, row: np.ndarray | None) -> tuple[float, float] | None:
        told = self._told(row)
        return None if told is None else (told[OVERALL], self.thresholds_as_frequency()[OVERALL])

    def _notes(self, study: Study) -> tuple[str, ...]:
        by = f"Levels found by {self.finder.config.name}"
        by += "." if _maps(self.finder.config.task) else ", on slices only: where on a slice they lie is a guess."
        heads = "No fracture head is trained: this report shows levels alone."
        if self.predictor is not None:
            heads = f"Fractures judged by {', '.join(self.predictor.blend.members)}."
        return by, heads, *([f"{len(study.skipped)} files left out."] if study.skipped else [])


class _Views:
    """A study's volume under several preprocessings, each made once."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self._made: dict[Preprocess, tuple[np.ndarray, Crop]] = {}

    def images(self, settings: Preprocess) -> StudyImages:
        geometry = self.study.geometry
        return StudyImages(
            self._view(settings)[0], geometry.z_mm, geometry.spacing_mm, thickness_mm=geometry.thickness_mm
        )

    def crop(self, settings: Preprocess) -> Crop:
        return self._view(settings)[1]

    def _view(self, settings: Preprocess) -> tuple[np.ndarray, Crop]:
        if settings not in self._made:
            plan = plan_study(self.study.volume, self.study.geometry, settings)
            self._made[settings] = cut(self.study.volume, plan, settings), plan.crop
        return self._made[settings]


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = time.perf_counter()

    def stop(self, what: str) -> None:
        now = time.perf_counter()
        self.seconds[what], self._began = now - self._began, now


def map_from_slices(presence: np.ndarray, study: Study, crop: Crop) -> LevelMap:
    """A level map from the probabilities of slices (z, 7): each level in a box about the vertebral bodies."""
    field_mm = crop.height * study.geometry.pixel_spacing_mm[0]
    side = max(1, round(field_mm / SLICE_MAP_MM))
    y, x = crop.to_cached(*spine_place(study))
    places_mm = ((np.arange(side) + 0.5) / side) * field_mm
    away_y, away_x = (places_mm - (place + 0.5) / crop.size_px * field_mm for place in (y, x))
    inside = ((away_y >= -BEFORE_MM) & (away_y <= BEHIND_MM))[:, None] & (np.abs(away_x) <= BESIDE_MM)
    return level_map(presence.T[:, :, None, None] * inside, study.geometry.z_mm, field_mm)


def _frame(study: Study, found: LevelMap, crop: Crop) -> Frame:
    """About the middle of the levels; about the whole cached square where none is found."""
    rows, columns = np.nonzero(level_labels(found.probabilities, 255 * FOUND).any(axis=0))
    shape = study.volume.shape[1], study.volume.shape[2]
    if not len(rows):
        return report_frame(study.geometry, shape, crop.to_original(*[(crop.size_px - 1) / 2] * 2), found.field_mm)
    ratio = crop.size_px / found.probabilities.shape[-1]
    middle = [(float(ends.min() + ends.max()) / 2 + 0.5) * ratio - 0.5 for ends in (rows, columns)]
    return report_frame(study.geometry, shape, crop.to_original(*middle), SPINE_MM)


def _maps(task: str) -> bool:
    return hasattr(find_task(task), "map_levels")
