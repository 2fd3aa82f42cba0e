"""Where a fracture head looks on the planes of a level: its heat, and boxes about the hottest places.

Heads on levels that ask every cell where the fracture is (`model.cells`) say so themselves; of others it is what moves
the logit. Boxes about heat need no detector, so they are what one has to beat.
"""

from functools import cache
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
import torch
from scipy import ndimage
from torch import nn
from tqdm import tqdm

from cspine.anatomy import LEVELS
from cspine.config import Config
from cspine.data.cache import bad_studies, open_study
from cspine.data.geometry import Geometry
from cspine.data.level_cells import CELL_PX
from cspine.data.preprocess import Crop
from cspine.data.slices import nearest_slices
from cspine.engine.distributed import choose_device
from cspine.engine.saliency import smooth_gradient
from cspine.errors import UserError
from cspine.held_out import load_placed_fold, out_of_fold_images, out_of_fold_presence
from cspine.inference import LoadedMember
from cspine.runs import Run, read_out_of_fold
from cspine.tables import FOUND_BOXES
from cspine.tasks.base import Look, LooksAtLevels, StudyImages, find_task

# Standard deviation, as a share of a plane's side, over which the heat of single pixels is gathered.
BLUR = 0.03
# Of the greatest heat of a level, what a box holds.
HOT = 0.5


def look_heat(model: nn.Module, look: Look, device: torch.device) -> np.ndarray:
    """float (planes, y, x): the cells' probabilities on the planes of a look, or the smoothed gradient of the logit."""
    if look.cells is not None:
        return _cell_heat(look.cells, look.planes(look.batch["image"]).shape[2:])
    heat = look.planes(smooth_gradient(model, look.batch, look.output, device)).sum(axis=1)
    sigma = BLUR * min(heat.shape[1:])
    return ndimage.gaussian_filter(heat, (0, sigma, sigma))


def _cell_heat(cells: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Linear between the middles of the cells (planes, cells, cells), the last of which may reach beyond `shape`."""
    sides = cells.shape[2] * CELL_PX, cells.shape[1] * CELL_PX
    return np.stack([cv2.resize(plane, sides)[: shape[0], : shape[1]] for plane in cells.astype(np.float32)])


def heat_boxes(run: Run, config: Config) -> pd.DataFrame:
    """Boxes about what each fold's model of a fracture run looks at in the studies that it did not see.

    On each slice, of the plane of a level that stands for it, the piece of at least HOT of the level's greatest heat
    that holds the plane's greatest, wider by the `crop.box_margin_mm` that people leave; it scores the level's
    probability by the plane's share of that heat. Raises UserError for a run that cannot tell.
    """
    if not issubclass(find_task(run.config["task"]), LooksAtLevels):
        raise UserError(f"{run.name}: its task {run.config['task']} has no method `look`, which boxes from heat need")
    data = read_out_of_fold([run], config)
    device = choose_device(config.train.device)
    member = cache(lambda fold: load_placed_fold(run.name, fold, config, device))
    presence, bad = out_of_fold_presence(member(0).config), bad_studies(member(0).config)
    tables = [pd.DataFrame(columns=list(FOUND_BOXES))]
    order = list(zip(data.uids, data.folds, data.predictions[run.name], strict=True))
    for uid, fold, probabilities in tqdm(order, desc=f"{run.name}, heat", unit="study", leave=False, disable=None):
        if uid in bad:
            continue
        one = member(int(fold))
        study = open_study(one.config, uid)
        images = out_of_fold_images(study, one.config, presence.get(uid))
        place = StudyPlace(uid, study.geometry, study.crop)
        for level, probability in enumerate(probabilities[1:]):
            boxes = level_boxes(one, images, level, float(probability), place, device)
            tables += [] if boxes is None else [boxes]
    return pd.concat([table for table in tables if len(table)] or tables, ignore_index=True)


class StudyPlace(NamedTuple):
    """A study's slices, and which square of them is cached."""

    uid: str
    geometry: Geometry
    crop: Crop


def level_boxes(
    member: LoadedMember, images: StudyImages, level: int, probability: float, study: StudyPlace, device: torch.device
) -> pd.DataFrame | None:
    """The boxes about where the first model of a member looks in a level; None where it does not judge the level."""
    task, model, config = find_task(member.config.task), member.models[0], member.config
    assert issubclass(task, LooksAtLevels)
    look = task.look(model, config, images, member.facts[0], level, device)
    if look is None:
        return None
    heat = look_heat(model, look, device)
    return boxes_of_heat(heat, look.z_mm, look.frame, study, level, probability, config.crop.box_margin_mm)


def boxes_of_heat(
    heat: np.ndarray,
    z_mm: np.ndarray,
    frame: tuple[float, float, float, float],
    study: StudyPlace,
    level: int,
    probability: float,
    margin_mm: float = 0.0,
) -> pd.DataFrame:
    """Of planes (planes, y, x) at `z_mm` whose frame (left, right, top, bottom) is in shares of the cached square.

    Wider by a margin, but within the planes. A slice has the box of the plane that stands for it.
    """
    greatest, side = float(heat.max()), study.crop.size_px
    margin = margin_mm / (study.crop.height * study.geometry.pixel_spacing_mm[0])
    rows: list[dict[str, Any]] = []
    for z, number in planes_of_slices(heat, z_mm, study.geometry.z_mm).items():
        plane = heat[number]
        pieces, _ = ndimage.label(plane >= HOT * greatest)
        hottest = pieces[np.unravel_index(plane.argmax(), plane.shape)]
        if not greatest or not hottest:
            continue
        down, across = ndimage.find_objects(pieces)[hottest - 1]
        left, right = (end * side - 0.5 for end in _ends(across, plane.shape[1], frame[:2], margin))
        top, bottom = (end * side - 0.5 for end in _ends(down, plane.shape[0], frame[2:], margin))
        (y0, x0), (y1, x1) = (
            study.geometry.to_file_pixels(z, *study.crop.to_original(y, x)) for y, x in ((top, left), (bottom, right))
        )
        place = [float(x0) + 0.5, float(y0) + 0.5, float(x1 - x0), float(y1 - y0)]
        score = probability * float(plane.max()) / greatest
        values = (study.uid, int(study.geometry.file_numbers[z]), *place, score, LEVELS[level])
        rows.append(dict(zip(FOUND_BOXES, values, strict=True)))
    return pd.DataFrame(rows, columns=list(FOUND_BOXES))


def planes_of_slices(heat: np.ndarray, z_mm: np.ndarray, slices_mm: np.ndarray) -> dict[int, int]:
    """Which plane stands for each slice of a study at `slices_mm` that the planes at `z_mm` reach.

    The nearest one no further than half of the planes' distance; where slices are sparser than planes, the hottest of
    those that have it as their nearest slice.
    """
    greatest = heat.max(axis=(1, 2))
    half_mm = float(np.median(np.abs(np.diff(z_mm)))) / 2 if len(z_mm) > 1 else 0.0
    nearest = np.abs(slices_mm[:, None] - z_mm).argmin(axis=1)
    reached = np.flatnonzero(np.abs(slices_mm - z_mm[nearest]) <= half_mm + 1e-6)
    chosen = dict(zip(reached.tolist(), nearest[reached].tolist(), strict=True))
    for plane, z in enumerate(nearest_slices(slices_mm, z_mm).tolist()):
        if z not in chosen or greatest[plane] > greatest[chosen[z]]:
            chosen[z] = plane
    return dict(sorted(chosen.items()))


def _ends(part: slice, count: int, frame: tuple[float, float], margin: float) -> tuple[float, float]:
    """Where pixels of `count` within a frame begin and end, with a margin; all in shares of the cached square."""
    first, last = frame
    step = (last - first) / count
    return max(first, first + part.start * step - margin), min(last, first + part.stop * step + margin)
