"""One study and what a head saw of it: its levels, the slices it suspected, and where in them it looked."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cspine.anatomy import LEVELS, OVERALL, TARGETS
from cspine.pictures.canvas import FAINT, INK, NOTHING, blank
from cspine.pictures.levels import COLOURS, draw_sagittal
from cspine.tasks.base import StudyImages

PANEL_IN, TITLE_IN, WORDS_IN, GAP_IN = 2.7, 0.5, 0.24, 0.06
LEAST_IN = 7.0  # the title's


@dataclass(frozen=True, eq=False)
class Case:
    """A study with its loss, what is true (8,) and what was predicted out-of-fold (8,); rank 1 is the worst."""

    rank: int
    uid: str
    fold: int
    loss: float
    labels: np.ndarray
    predictions: np.ndarray

    @property
    def true(self) -> str:
        """What is fractured, in words."""
        found = [target for target, label in zip(TARGETS, self.labels, strict=True) if label]
        return " ".join(found).replace(OVERALL, "patient") or "no fracture"


@dataclass(frozen=True, eq=False)
class Shown:
    """One level on one plane: its image and heat (y, x), and where in the cached square they lie."""

    level: int
    words: str
    image: np.ndarray
    heat: np.ndarray
    z_mm: float
    frame: tuple[float, float, float, float]  # left, right, top, bottom, as shares of the square
    outline: np.ndarray | None  # over the whole square, the level's edge at 0.5


def draw_case(
    case: Case, images: StudyImages, presence: np.ndarray | None, field_mm: float, shown: Sequence[Shown]
) -> Figure:
    """The sagittal plane with the levels (by `presence`, (z, 7), if known), and a column for each level shown.

    A column is the plane with the level's outline over the same plane with where the head looks.
    """
    depth_mm = float(images.z_mm[0] - images.z_mm[-1]) + images.spacing_mm
    height = 2 * (PANEL_IN + WORDS_IN)
    sagittal_in = float(np.clip((height - WORDS_IN) * field_mm / depth_mm, 2.5, 6.5))
    width = max(LEAST_IN, sagittal_in + len(shown) * (PANEL_IN + GAP_IN))
    figure = Figure((width, height + TITLE_IN), facecolor="white")

    def place(left: float, bottom: float, across: float, up: float) -> Axes:
        whole = figure.get_size_inches()
        return figure.add_axes((left / whole[0], bottom / whole[1], across / whole[0], up / whole[1]))

    sagittal = place(0, 0, sagittal_in, height - WORDS_IN)
    _draw_levels(sagittal, case, images, presence, field_mm, shown)
    for column, one in enumerate(shown):
        left = sagittal_in + GAP_IN + column * (PANEL_IN + GAP_IN)
        above, below = (place(left, row * (PANEL_IN + WORDS_IN), PANEL_IN, PANEL_IN) for row in (1, 0))
        _draw_plane(above, one, one.words)
        _draw_plane(below, one, "where it looks")
        if one.outline is not None:
            _draw_outline(above, one)
        _draw_heat(below, one.heat, one)
    _write_title(figure, case, height)
    return figure


def _draw_levels(
    axis: Axes,
    case: Case,
    images: StudyImages,
    presence: np.ndarray | None,
    field_mm: float,
    shown: Sequence[Shown],
) -> None:
    known = np.zeros((len(images.z_mm), len(LEVELS))) if presence is None else presence
    told = zip(LEVELS, case.predictions[1:], case.labels[1:], strict=True)
    names = [f"{level} {probability:.2f}" + (" !" if label else "") for level, probability, label in told]
    draw_sagittal(axis, images, known, field_mm, names)
    for one in shown:
        axis.axhline(one.z_mm, 0, 0.74, color=COLOURS[one.level], lw=0.9, ls="--")
    words = "levels not known" if presence is None else "levels, with their predictions; ! is fractured"
    axis.set_title(f" {words}", loc="left", fontsize=8, color=FAINT, pad=3)
    blank(axis)


def _draw_plane(axis: Axes, one: Shown, words: str) -> None:
    left, right, top, bottom = one.frame
    axis.patch.set_facecolor(NOTHING)
    axis.imshow(one.image, cmap="gray", vmin=0, vmax=255, extent=(left, right, bottom, top))
    axis.set_title(words, loc="left", fontsize=8, color=INK, pad=3)
    blank(axis)


def _draw_outline(axis: Axes, one: Shown) -> None:
    assert one.outline is not None
    side = len(one.outline)
    middles = (np.arange(side) + 0.5) / side
    limits = axis.get_xlim(), axis.get_ylim()
    if one.outline.max() > 0.5 > one.outline.min():
        axis.contour(middles, middles, one.outline, [0.5], colors=[COLOURS[one.level]], linewidths=1.2)
    axis.set(xlim=limits[0], ylim=limits[1])


def _draw_heat(axis: Axes, heat: np.ndarray, one: Shown) -> None:
    left, right, top, bottom = one.frame
    greatest = float(heat.max())
    share = heat / greatest if greatest > 0 else heat
    colours = mpl.colormaps["inferno"](share)
    colours[..., 3] = 0.8 * share
    axis.imshow(colours, extent=(left, right, bottom, top))


def _write_title(figure: Figure, case: Case, height: float) -> None:
    whole = figure.get_size_inches()[1]
    predicted = ", ".join(
        f"{target.replace('_overall', '')} {value:.2f}" for target, value in zip(TARGETS, case.predictions, strict=True)
    )
    first = (
        f"{case.rank}. study ...{case.uid[-16:].lstrip('.')}, fold {case.fold}: loss {case.loss:.3f}; true: {case.true}"
    )
    for row, (text, colour, size) in enumerate(((first, INK, 10), (f"predicted: {predicted}", FAINT, 8))):
        figure.text(0.006, (height + TITLE_IN - 0.22 - 0.22 * row) / whole, text, color=colour, fontsize=size)
