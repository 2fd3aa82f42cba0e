"""The studies that a fracture run is most wrong about, by the competition's loss, each as a picture.

`oof/<run>/worst.csv` and `oof/<run>/worst/<rank>-<uid>.png`. Each study is looked at by the model of the fold that held
it out. A level's outline is stage 1's where that maps levels, else the mask's, and is left out where neither is there.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from cspine.anatomy import LEVELS, TARGETS
from cspine.config import Config
from cspine.data.cache import CachedStudy, bad_studies, open_study
from cspine.data.grid import slice_index
from cspine.engine.distributed import choose_device
from cspine.errors import UserError
from cspine.held_out import load_placed_fold, out_of_fold_images, out_of_fold_presence
from cspine.inference import LoadedMember
from cspine.look_heat import look_heat
from cspine.metrics import loss_weights, study_losses, target_losses
from cspine.pictures.canvas import save
from cspine.pictures.worst import Case, Shown, draw_case
from cspine.runs import ENSEMBLE, OutOfFold, find_runs, read_out_of_fold
from cspine.tables import STUDY, write_table
from cspine.tasks.base import LooksAtLevels, StudyImages, find_task

FOLDER = "worst"


def worst_cases(data: OutOfFold, run: str, count: int) -> list[Case]:
    """The studies with the greatest loss, worst first; of equal ones the first of folds.csv."""
    predictions = data.predictions[run]
    losses = study_losses(data.labels, predictions)
    order = np.argsort(-losses, kind="stable")[:count]
    return [
        Case(rank, data.uids[n], int(data.folds[n]), float(losses[n]), data.labels[n], predictions[n])
        for rank, n in enumerate(order, start=1)
    ]


def draw_worst(name: str, config: Config, count: int) -> Path:
    """Write the table and the pictures of the worst `count` studies; the folder of the pictures.

    `config` says where things are, the run's own config all else. Raises UserError for a run without all its folds, and
    for one that judges no fractures or cannot tell what it looks at.
    """
    (run,) = find_runs(Path(config.paths.oof), [name])
    if name == ENSEMBLE or run.kind != "fracture":
        raise UserError(
            f"--run {name}: no fracture run, whose worst studies could be drawn; name one of its own models"
        )
    cases = worst_cases(read_out_of_fold([run], config), name, count)
    device = choose_device(config.train.device)
    member = cache(lambda fold: load_placed_fold(name, fold, config, device))
    if not issubclass(find_task(member(cases[0].fold).config.task), LooksAtLevels):
        raise UserError(f"--run {name}: its task {run.config['task']} has no method `look`, which its pictures need")
    presence = out_of_fold_presence(member(cases[0].fold).config)
    folder = run.folder / FOLDER
    for old in folder.glob("*.png"):
        old.unlink()
    bad, drawn = bad_studies(member(cases[0].fold).config), []
    for case in tqdm(cases, desc=f"{name}, worst studies", unit="study", leave=False, disable=None):
        file = folder / f"{case.rank:02d}-{case.uid}.png"
        if case.uid not in bad:
            _draw(case, member(case.fold), presence, device, file)
        drawn.append(f"{FOLDER}/{file.name}" if case.uid not in bad else "")
    write_table(worst_table(cases, drawn), run.folder / "worst.csv")
    return folder


def worst_table(cases: list[Case], pictures: list[str]) -> pd.DataFrame:
    """A row a study: rank, StudyInstanceUID, fold, loss, true, the eight predictions, and the picture (empty: none)."""
    table = pd.DataFrame([case.predictions for case in cases], columns=list(TARGETS))
    for place, (column, values) in enumerate(
        {
            "rank": [case.rank for case in cases],
            STUDY: [case.uid for case in cases],
            "fold": [case.fold for case in cases],
            "loss": [case.loss for case in cases],
            "true": [case.true for case in cases],
        }.items()
    ):
        table.insert(place, column, values)
    return table.assign(picture=pictures)


def _draw(
    case: Case, member: LoadedMember, presence: Mapping[str, np.ndarray], device: torch.device, file: Path
) -> None:
    config = member.config
    study = open_study(config, case.uid)
    images = out_of_fold_images(study, config, presence.get(case.uid))
    by_suspicion = [int(level) for level in np.argsort(-case.predictions[1:], kind="stable")]
    costliest, shown = _costliest(case), []
    for level in by_suspicion:
        words = _words(case, level, "most suspected" + (", costs most" if level == costliest else ""))
        if (one := _look(level, words, study, images, member, device)) is not None:
            shown.append(one)
            break
    if costliest not in [one.level for one in shown]:
        words = _words(case, costliest, "costs most")
        shown += [one] if (one := _look(costliest, words, study, images, member, device)) is not None else []
    known = images.presence if images.presence is not None else study.presence
    field_mm = study.crop.height * study.geometry.pixel_spacing_mm[0]
    save(draw_case(case, images, known, field_mm, shown), file)


def _costliest(case: Case) -> int:
    """The level, 0 to 6, that adds most to the loss."""
    labels, predictions = case.labels[None], case.predictions[None]
    return int((target_losses(labels, predictions) * loss_weights(labels)[0])[1:].argmax())


def _words(case: Case, level: int, why: str) -> str:
    truth = "fractured" if case.labels[1 + level] else "sound"
    return f"{LEVELS[level]} {case.predictions[1 + level]:.2f}, {truth}: {why}"


def _look(
    level: int, words: str, study: CachedStudy, images: StudyImages, member: LoadedMember, device: torch.device
) -> Shown | None:
    """What the head sees of a level and what moves its logit; None where it does not judge the level."""
    (model,), (facts,), config = member.models, member.facts, member.config
    task = find_task(config.task)
    assert issubclass(task, LooksAtLevels)
    look = task.look(model, config, images, facts, level, device)
    if look is None:
        return None
    heat = look_heat(model, look, device)
    plane = int(heat.max(axis=(1, 2)).argmax()) if look.shown is None else look.shown
    # The slice itself, under the first window, among its neighbours.
    channel, z_mm = config.data.neighbours * len(config.preprocess.windows), float(look.z_mm[plane])
    image = look.planes(look.batch["image"])[plane, channel]
    return Shown(level, words, image, heat[plane], z_mm, look.frame, _outline(study, images, config, level, z_mm))


def _outline(study: CachedStudy, images: StudyImages, config: Config, level: int, z_mm: float) -> np.ndarray | None:
    """The level on the plane over the cached square, its edge at 0.5: by stage 1's map, else by the mask."""
    if images.level_map is not None:
        found = images.level_map()
        # Linear between planes, as the mask is that a head on level crops sees.
        index = float(slice_index(np.array(z_mm), found.plane_z_mm))
        lower = found.probabilities[level, int(index)].astype(float)
        upper = found.probabilities[level, min(int(index) + 1, len(found.plane_z_mm) - 1)]
        return (lower + (index - int(index)) * (upper - lower)) / 255 - config.crop.threshold + 0.5
    if study.presence is None:
        return None
    return (study.levels[np.abs(images.z_mm - z_mm).argmin()] == level + 1).astype(float)
