"""Which levels a vertebra run finds in a study: their extents on the sagittal plane, and the probabilities along z."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from cspine.anatomy import LEVELS
from cspine.data.decode import DecodeTask, decode_study
from cspine.data.levels import level_extents
from cspine.errors import UserError
from cspine.inference import LoadedMember, study_images
from cspine.level_scores import largest_runs
from cspine.pictures.canvas import INK, blank
from cspine.tasks.base import StudyImages

COLOURS = ("#e6194b", "#f58231", "#ffe119", "#3cb44b", "#42d4f4", "#4363d8", "#f032e6")
HEIGHT_IN = 5.0


def find_levels(run: LoadedMember, folder: Path) -> tuple[StudyImages, np.ndarray]:
    """A study's images under the run's preprocessing, and the probability of each level on each slice, (z, 7).

    Raises UserError where the study cannot be decoded.
    """
    settings = run.config.preprocess
    decoded = decode_study(DecodeTask(folder.name, folder, (settings,)))
    if decoded.bad:
        raise UserError(f"{folder}: {decoded.bad}")
    images = study_images(decoded, settings)
    return images, run.infer(images, torch.device("cpu"))


def draw_levels(title: str, images: StudyImages, presence: np.ndarray, field_mm: float) -> Figure:
    """The middle sagittal plane with each level's extent beside it, and the probabilities over z."""
    z_mm = images.z_mm
    depth_mm = float(z_mm[0] - z_mm[-1]) + images.spacing_mm
    figure = Figure((HEIGHT_IN * field_mm / depth_mm + 2.2, HEIGHT_IN))
    width = HEIGHT_IN * field_mm / depth_mm / figure.get_figwidth()
    picture = figure.add_axes((0.0, 0.0, width, 0.94))
    curves = figure.add_axes((width + 0.005, 0.0, 0.985 - width, 0.94), sharey=picture)
    draw_sagittal(picture, images, presence, field_mm)
    for number in range(len(LEVELS)):
        curves.plot(presence[:, number], z_mm, color=COLOURS[number], linewidth=1.2)
    curves.set_xlim(-0.03, 1.03)
    picture.set_title(title, loc="left", fontsize=8, color=INK)
    for axis in (picture, curves):
        blank(axis)
    return figure


def draw_sagittal(
    axis: Axes, images: StudyImages, presence: np.ndarray, field_mm: float, names: Sequence[str] = LEVELS
) -> None:
    """The middle sagittal plane, in mm, with a bar over each level's extent by presence (z, 7), and its name."""
    z_mm = images.z_mm
    plane = images.volume[:, 0, :, images.volume.shape[-1] // 2]
    top, bottom = float(z_mm[0]) + images.spacing_mm / 2, float(z_mm[-1]) - images.spacing_mm / 2
    axis.imshow(plane, cmap="gray", vmin=0, vmax=255, extent=(0, field_mm, bottom, top), aspect="auto")
    extents = level_extents(largest_runs(presence), z_mm)
    for number, name in enumerate(names):
        low, high = extents.z_bottom_mm[number], extents.z_top_mm[number]
        if np.isfinite(low):
            place = field_mm * (0.78 + 0.06 * (number % 2))
            axis.plot([place, place], [low, high], color=COLOURS[number], linewidth=3, solid_capstyle="butt")
            # Outwards, so that no name lies on the neighbour's bar; a dark edge keeps it legible on bone.
            shift, side = (0.02, "left") if number % 2 else (-0.02, "right")
            text = axis.text(place + shift * field_mm, (low + high) / 2, name, color=COLOURS[number], fontsize=8)
            text.set(va="center", ha=side, path_effects=[withStroke(linewidth=2, foreground="black")])
