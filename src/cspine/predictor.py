"""A study's images in, eight probabilities out: the one piece of code behind src/predict.py and the kernel.

Whatever fails is left out: a model of its run's mean, a run of the blend. Who is told, and whether that ends it all, is
the caller's choice: by default it does.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial

import numpy as np
import torch
from torch import nn

from cspine.blend import Blend
from cspine.budget import Plan, Runs
from cspine.bundle import Bundle
from cspine.config import Config, Preprocess
from cspine.data.background import keep_spine
from cspine.data.slices import channels
from cspine.errors import refuse
from cspine.inference import LoadedMember, load_member
from cspine.level_maps import LevelMap
from cspine.models.registry import create_model
from cspine.stopwatch import Stopwatch
from cspine.tasks.base import StudyImages, find_task

Complain = Callable[[str], object]
ImagesFor = Callable[[Preprocess], StudyImages]
# Older GPUs, the T4 among them, emulate bfloat16 at a crawl.
BFLOAT16_SINCE = (8, 0)


class Predictor:
    """All models of a bundle, loaded once."""

    def __init__(self, bundle: Bundle, device: torch.device, complain: Complain = refuse) -> None:
        """Load what loads. Raises UserError where no member of the blend is left."""
        self.device = device
        self.blend = Blend.from_json(bundle.blend)
        self.order = tuple(bundle.blend.get("least_valuable_first", self.blend.members))
        loaded: dict[str, LoadedMember] = {}
        for description in (*bundle.stage1, *bundle.members):
            member = load_member(description, bundle, device, complain)
            name, lost = member.config.name, [run for run in member.config.reads if run not in loaded]
            if not member.models or lost:
                complain(
                    f"{name} is left out: " + (f"it reads {', '.join(lost)}" if lost else "none of its models loads")
                )
            else:
                loaded[name] = replace(member, config=_on_device(member.config, device))
        self.members = [loaded[name] for name in self.blend.members if name in loaded]
        if not self.members:
            refuse("no member of the blend could be loaded")
        self.stage1 = [loaded[str(run.config["name"])] for run in bundle.stage1 if run.config["name"] in loaded]
        self._unmirrored: dict[str, LoadedMember] = {}

    @property
    def preprocesses(self) -> list[Preprocess]:
        """The distinct preprocessings that the members were trained on."""
        return list(dict.fromkeys(member.config.preprocess for member in (*self.stage1, *self.members)))

    @property
    def runs(self) -> Runs:
        """What a budget must know of them."""
        names = [member.config.name for member in self.members]
        both = (*self.stage1, *self.members)
        return Runs(
            reads={member.config.name: member.config.reads for member in both},
            order=[name for name in self.order if name in names],
            mirrored=frozenset(member.config.name for member in both if _looks_twice(member.config)),
        )

    def predict(
        self,
        images_for: ImagesFor,
        plan: Plan | None = None,
        complain: Complain = refuse,
        watch: Stopwatch | None = None,
    ) -> np.ndarray:
        """The eight probabilities of one study, in the order of anatomy.TARGETS.

        `images_for` gives the study's volume under a preprocessing. A member that fails is left out of the blend;
        ValueError where all do. `watch` gets the seconds of each run.
        """
        plan = plan or Plan()
        runs = {member.config.name: self._planned(member, plan) for member in self.stage1}
        return self.judge(OpenStudy(images_for, runs, self.device, watch or Stopwatch()), plan, complain)

    def judge(self, study: "OpenStudy", plan: Plan | None = None, complain: Complain = refuse) -> np.ndarray:
        """`predict` of a study that others ask about, too."""
        plan = plan or Plan()
        rows: dict[str, np.ndarray] = {}
        for member in self.members:
            name = member.config.name
            if name in plan.dropped:
                continue
            try:
                rows[name] = self._ask(self._planned(member, plan), study, complain)
            except Exception as error:
                # Whatever it is, the other members can still answer.
                told = str(error).splitlines() or [""]
                complain(f"{name} is left out: {type(error).__name__}: {told[0]}")
        blend = self.blend.without(set(self.blend.members) - rows.keys())
        return blend.apply([rows[name][None] for name in blend.members])[0]

    def _ask(self, member: LoadedMember, study: "OpenStudy", complain: Complain) -> np.ndarray:
        name, half = member.config.name, member.config.train.precision != "float32"
        row = study.through(member)
        if half and not np.isfinite(row).all():
            complain(f"{name}: no finite number in half precision, once more in single")
            settings = replace(member.config.train, precision="float32")
            row = study.through(replace(member, config=replace(member.config, train=settings)))
        if not (np.isfinite(row) & (row >= 0) & (row <= 1)).all():
            raise ValueError("its answer is no probability")
        return row

    def _planned(self, member: LoadedMember, plan: Plan) -> LoadedMember:
        if plan.views or not _looks_twice(member.config):
            return member
        name = member.config.name
        if name not in self._unmirrored:
            self._unmirrored[name] = _without_mirror(member)
        return self._unmirrored[name]


@dataclass
class OpenStudy:
    """One study, of which each of the vertebra `runs` is asked at most once, and only where somebody reads it."""

    images_for: ImagesFor
    runs: Mapping[str, LoadedMember]
    device: torch.device
    watch: Stopwatch = field(default_factory=Stopwatch)
    presence: Callable[[str], np.ndarray] = field(init=False)
    level_map: Callable[[str], LevelMap] = field(init=False)

    def __post_init__(self) -> None:
        self.presence, self.level_map = cache(self._presence), cache(self._level_map)

    def images(self, member: LoadedMember) -> StudyImages:
        """What a run infers from: with the steps of its preprocessing, and stage 1's answers, that other runs make."""
        settings, stage1 = member.config.preprocess, member.config.stage1
        images = self.images_for(settings)
        if settings.mask == "learned" and settings.mask_run is not None:
            found = self.level_map(settings.mask_run)
            images = replace(images, volume=keep_spine(images.volume, images.z_mm, found, settings))
        if stage1 is None:
            return images
        return images.with_stage1(partial(self.presence, stage1), partial(self.level_map, stage1))

    def through(self, member: LoadedMember) -> np.ndarray:
        """What the run says of the study: eight probabilities, or presence (z, 7) of a vertebra run."""
        images = self.images(member)
        with self.watch(member.config.name):
            return member.infer(images, self.device)

    def _presence(self, run: str) -> np.ndarray:
        return self.through(self.runs[run])

    def _level_map(self, run: str) -> LevelMap:
        images = self.images(self.runs[run])
        with self.watch(run):
            return self.runs[run].map_levels(images, self.device)


def _looks_twice(config: Config) -> bool:
    return config.model.flip_at_test or config.model.sequence.flip_at_test


def _without_mirror(member: LoadedMember) -> LoadedMember:
    """The same weights, shared, in models that look once."""
    sequence = replace(member.config.model.sequence, flip_at_test=False)
    settings = replace(member.config.model, flip_at_test=False, sequence=sequence)
    config = replace(member.config, model=settings)

    def once(model: nn.Module) -> nn.Module:
        twin = create_model(settings, channels(config), find_task(config.task).outputs, pretrained=False)
        twin.load_state_dict(model.state_dict(), assign=True)
        return twin.eval()

    return replace(member, config=config, models=tuple(map(once, member.models)))


def _on_device(config: Config, device: torch.device) -> Config:
    """With the half precision that a GPU is quick at, whatever the run was trained with; a CPU computes in single."""
    if device.type != "cuda":
        return config
    wide = config.train.precision == "bfloat16" and torch.cuda.get_device_capability(device) >= BFLOAT16_SINCE
    return replace(config, train=replace(config.train, precision="bfloat16" if wide else "float16"))
