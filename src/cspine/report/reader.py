"""A study as the trained models read it: where its levels are, how likely each is fractured, and where that is seen."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cspine.anatomy import LEVELS, OVERALL, TARGETS
from cspine.bundle import from_runs
from cspine.calibrations import frequency
from cspine.config import Config, Preprocess
from cspine.data.background import FOUND
from cspine.data.bones import REACH_MM, level_bones
from cspine.data.dicom import load_study
from cspine.data.levels3d import found_labels, level_labels
from cspine.data.preprocess import Crop, cut, plan_study
from cspine.data.study import Study
from cspine.errors import UserError
from cspine.inference import LoadedMember, load_run
from cspine.lesions import LESION_COLUMNS, find_lesions, levels_by_map
from cspine.level_maps import LevelMap, level_map
from cspine.look_heat import StudyPlace, level_boxes
from cspine.paths import read_json
from cspine.pictures.planes import spine_place
from cspine.predictor import OpenStudy, Predictor
from cspine.report.frame import SPINE_MM, Frame, report_frame
from cspine.report.heat import draw_heat
from cspine.report.levels import LevelReading, read_levels
from cspine.report.surfaces import Surface, level_surfaces
from cspine.search import HEAT, Search
from cspine.stopwatch import Stopwatch
from cspine.tables import FOUND_BOXES
from cspine.tasks import fracture_sequence
from cspine.tasks.base import LooksAtLevels, StudyImages, find_task

# Where stage 1 knows slices only, the levels are drawn within this box: mm before, behind and beside the bodies.
BEFORE_MM, BEHIND_MM, BESIDE_MM = 16.0, 48.0, 32.0
SLICE_MAP_MM = 4.0


@dataclass(frozen=True, eq=False)
class Reading:
    """What a report shows of a study. Arrays are (z, y, x) on the frame's voxels."""

    name: str
    frame: Frame
    volume_hu: np.ndarray  # int16
    labels: np.ndarray  # uint8, 1 to 7 for the bone of C1 to C7
    heat: np.ndarray | None  # float32, 0 to 1
    levels: tuple[LevelReading, ...]
    patient: tuple[float, float] | None  # probability and threshold
    lesions: pd.DataFrame
    surfaces: tuple[Surface | None, ...]
    notes: tuple[str, ...]
    seconds: Mapping[str, float]


class Reader:
    """The models of `oof/`: the vertebra run that finds the levels, the ensemble's heads where one is made, and what is
    asked for to find lesions: a run of detectors, or HEAT of a head that asks cells.
    """

    def __init__(self, oof: Path, run: str | None, device: torch.device, detector: str | None = None) -> None:
        self.device, self.predictor, self.thresholds = device, None, {}
        self.runs: dict[str, LoadedMember] = {}
        if (file := oof / "ensemble" / "blend.json").exists():
            self.predictor = Predictor(from_runs(oof), device)
            self.runs = {member.config.name: member for member in self.predictor.stage1}
            self.thresholds = read_json(file)["thresholds"]
        self.finder = self._load(oof, run or self._finder(oof))
        self.search = None if detector in (None, HEAT) else Search(oof, self._load(oof, detector))
        self.by_heat = detector == HEAT

    def _finder(self, oof: Path) -> str:
        """A stage 1 of the ensemble that maps levels, another run that does, or any vertebra run."""
        if mapping := [name for name, member in self.runs.items() if _maps(member.config.task)]:
            return mapping[0]
        others = sorted(path.parents[1].name for path in oof.glob("*/f*/done.json"))
        tasks = {name: read_json(min((oof / name).glob("f*/config.json")))["task"] for name in dict.fromkeys(others)}
        found = [
            *[name for name, task in tasks.items() if _maps(task)],
            *self.runs,
            *[name for name, task in tasks.items() if task.startswith("vertebra/")],
        ]
        if not found:
            raise UserError(f"{oof}: no trained vertebra run; train one with: python src/train.py --fold all")
        return found[0]

    def _load(self, oof: Path, run: str) -> LoadedMember:
        """A run with all those that it reads, each loaded once."""
        if run not in self.runs:
            self.runs[run] = load_run(oof, run, self.device, alone=False)
        for other in self.runs[run].config.reads:
            self._load(oof, other)
        return self.runs[run]

    def read(
        self,
        path: Path,
        name: str,
        boxes: pd.DataFrame | None = None,
        known: np.ndarray | None = None,
        extra: tuple[str, ...] = (),
    ) -> Reading:
        """A folder of DICOM files or a NIfTI file. Raises StudyError where it cannot be decoded.

        `boxes` are those of the study under tables.FOUND_BOXES, to be joined to lesions; without them the detectors
        search, or the head's heat tells. `known` are the eight probabilities of a study that was trained on, from out
        of fold, to stand in the place of the models' own. `extra` are notes to put before the others.
        """
        watch = Stopwatch()
        with watch("decoding"):
            study = load_study(path)
        views = _Views(study)
        opened, crop = OpenStudy(views.images, self.runs, self.device), views.crop(self.finder.config.preprocess)
        with watch("inference"):
            found = self._find(opened, study, crop)
            row = None
            if self.predictor is not None:
                row = self.predictor.judge(opened) if known is None else known
        notes = self._notes(study)
        if boxes is None and self.search is not None:
            with watch("search"):
                boxes = self._boxes(self.search, name, opened, views, row)
            notes = (*notes, self.search.note(name, len(boxes)))
        elif boxes is None and self.by_heat and row is not None:
            with watch("search"):
                boxes, note = self._hottest(name, row, opened, views)
            notes = (*notes, note)
        frame = study_frame(study, found, crop)
        with watch("heat"):
            heat = None if row is None else self._heat(row[1:], opened, views, frame)
        with watch("voxels"):
            volume_hu = frame.sample(study.volume)
            labels, probability = found_levels(found, frame, crop)
        with watch("bones"):
            reach_mm = growth_mm(self.finder.config, found)
            bones = level_bones(volume_hu, labels, probability, frame.voxel_mm, reach_mm)
        with watch("meshes"):
            surfaces = level_surfaces(bones, frame.voxel_mm)
        levels = read_levels(labels, frame, self._told(row), self.thresholds_as_frequency())
        lesions = pd.DataFrame(columns=list(LESION_COLUMNS))
        if boxes is not None and len(boxes):
            lesions = find_lesions(name, boxes, study.geometry, levels_by_map(boxes, study.geometry, found, crop))
        return Reading(
            name, frame, volume_hu, bones, heat, levels, self._patient(row), lesions, tuple(surfaces),
            (*extra, *notes), dict(watch.seconds),
        )  # fmt: skip

    def thresholds_as_frequency(self) -> dict[str, float]:
        return {target: float(frequency(np.array(cut))) for target, cut in self.thresholds.items()}

    def _find(self, opened: OpenStudy, study: Study, crop: Crop) -> LevelMap:
        run = self.finder.config
        if _maps(run.task):
            return opened.level_map(run.name)
        return map_from_slices(opened.presence(run.name), study, crop)

    def _boxes(
        self, search: Search, name: str, opened: OpenStudy, views: "_Views", row: np.ndarray | None
    ) -> pd.DataFrame:
        crop = views.crop(search.member.config.preprocess)
        fractured = None if row is None else row[1:] >= np.array([self.thresholds[level] for level in LEVELS])
        return search.find(name, opened, views.study.geometry, crop, fractured)

    def _hottest(
        self, name: str, row: np.ndarray, opened: OpenStudy, views: "_Views"
    ) -> tuple[pd.DataFrame | None, str]:
        """Boxes about the hottest places of the levels taken for fractured, and what to tell of them."""
        head = self._cell_head()
        if head is None:
            return None, "No lesions: they need a run of detectors, or a head on levels with model.cells."
        place = StudyPlace(name, views.study.geometry, views.crop(head.config.preprocess))
        tables = [pd.DataFrame(columns=list(FOUND_BOXES))]
        for number, (level, probability) in enumerate(zip(LEVELS, row[1:].tolist(), strict=True)):
            if probability >= self.thresholds[level]:
                boxes = level_boxes(head, opened.images(head), number, probability, place, self.device)
                tables += [] if boxes is None else [boxes]
        boxes = pd.concat([table for table in tables if len(table)] or tables, ignore_index=True)
        return boxes, f"Lesions are where {head.config.name} is hottest in the levels taken for fractured."

    def _cell_head(self) -> LoadedMember | None:
        """The heaviest head of the blend on levels that says of every cell whether the fracture is there."""
        for member in self._looking_heads():
            if member.config.model.cells and issubclass(find_task(member.config.task), fracture_sequence.Task):
                return member
        return None

    def _looking_heads(self) -> list[LoadedMember]:
        """The heads of the blend that can tell where they look, the heaviest first."""
        assert self.predictor is not None
        weighed = sorted(
            zip(self.predictor.blend.weights, self.predictor.members, strict=True), key=lambda one: -one[0]
        )
        return [member for _, member in weighed if issubclass(find_task(member.config.task), LooksAtLevels)]

    def _heat(self, levels: np.ndarray, opened: OpenStudy, views: "_Views", frame: Frame) -> np.ndarray | None:
        """By the heaviest head of the blend that can tell; None where none can."""
        heads = self._looking_heads()
        if not heads:
            return None
        crop = views.crop(heads[0].config.preprocess)
        return draw_heat(heads[0], opened.images(heads[0]), frequency(levels), frame, crop, self.device)

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


def map_from_slices(presence: np.ndarray, study: Study, crop: Crop) -> LevelMap:
    """A level map from the probabilities of slices (z, 7): each level in a box about the vertebral bodies."""
    field_mm = crop.height * study.geometry.pixel_spacing_mm[0]
    side = max(1, round(field_mm / SLICE_MAP_MM))
    y, x = crop.to_cached(*spine_place(study))
    places_mm = ((np.arange(side) + 0.5) / side) * field_mm
    away_y, away_x = (places_mm - (place + 0.5) / crop.size_px * field_mm for place in (y, x))
    inside = ((away_y >= -BEFORE_MM) & (away_y <= BEHIND_MM))[:, None] & (np.abs(away_x) <= BESIDE_MM)
    return level_map(presence.T[:, :, None, None] * inside, study.geometry.z_mm, field_mm)


def growth_mm(config: Config, found: LevelMap) -> float:
    """How far the levels of a run's map grow on the report's voxels.

    Boxes about levels known on slices alone are wide enough, and a map that is grown already lacks a voxel at most.
    """
    if not _maps(config.task):
        return 0.0
    return found.field_mm / found.probabilities.shape[-1] if config.volume.grow_mm else REACH_MM


def study_frame(study: Study, found: LevelMap, crop: Crop) -> Frame:
    """About the middle of the levels; about the whole cached square where none is found."""
    rows, columns = np.nonzero(level_labels(found.probabilities, 255 * FOUND).any(axis=0))
    shape = study.volume.shape[1], study.volume.shape[2]
    if not len(rows):
        return report_frame(study.geometry, shape, crop.to_original(*[(crop.size_px - 1) / 2] * 2), found.field_mm)
    ratio = crop.size_px / found.probabilities.shape[-1]
    middle = [(float(ends.min() + ends.max()) / 2 + 0.5) * ratio - 0.5 for ends in (rows, columns)]
    return report_frame(study.geometry, shape, crop.to_original(*middle), SPINE_MM)


def found_levels(found: LevelMap, frame: Frame, crop: Crop) -> tuple[np.ndarray, np.ndarray]:
    """Labels 0 to 7 of a map on the frame, of each level the largest piece, and the probability of the likeliest."""
    likeliest, probability = frame.sample_map(found, crop)
    return found_labels(likeliest, probability, FOUND), probability


def _maps(task: str) -> bool:
    return hasattr(find_task(task), "map_levels")
