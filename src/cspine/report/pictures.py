"""A reading as pictures: the sagittal plane, the most suspicious slices, the spine from two sides."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cspine.lesions import GREATEST, LEAST
from cspine.pictures.canvas import FAINT, INK, blank, save
from cspine.report.page import COLOURS, level_colours
from cspine.report.reader import Reading
from cspine.windows import WINDOWS

LESION = "#ff3bd4"
SLICES = 5
APART_MM = 6.0
INCHES_PER_MM = 0.035
# Degrees that the patient is turned: from the front, half left; from behind, half left.
SIDES = {"from the front": -35.0, "from behind": 145.0}
RAISED = 15.0  # so much the viewer looks down
LIGHT = np.array([0.3, -0.45, 0.84])  # to the viewer's left, up, toward


def write_pictures(reading: Reading, folder: Path, stem: str) -> list[Path]:
    """`<stem>-sagittal.png`, `-slices.png` and, where a level has a surface, `-spine.png`."""
    figures = {"sagittal": draw_sagittal(reading), "slices": draw_slices(reading)}
    if any(surface is not None for surface in reading.surfaces):
        figures["spine"] = draw_spine(reading)
    files = [folder / f"{stem}-{name}.png" for name in figures]
    for file, figure in zip(files, figures.values(), strict=True):
        save(figure, file)
    return files


def draw_sagittal(reading: Reading) -> Figure:
    """The plane through the middle of the levels: as it is, and with levels, heat and the lesions that cross it."""
    frame = reading.frame
    centres = [level.centre_mm for level in reading.levels if level.centre_mm is not None]
    x = int(np.median(frame.to_index(np.array(centres))[:, 2])) if centres else frame.shape[2] // 2
    height, width = (size * frame.voxel_mm * INCHES_PER_MM for size in frame.shape[:2])
    figure = Figure((2 * width + 1.0, height), facecolor="black")
    for place, axis in enumerate(figure.subplots(1, 2, gridspec_kw={"width_ratios": [width, width + 1.0]})):
        _show(axis, reading.volume_hu[:, :, x])
        if place:
            _overlay(axis, reading, (slice(None), slice(None), x))
            _boxes(axis, reading, 2, x)
            _name_levels(axis, reading)
    figure.subplots_adjust(0, 0, 1, 1, 0.01)
    return figure


def draw_slices(reading: Reading) -> Figure:
    """The most suspicious slices in a row; below each the same with the heat and the boxes."""
    chosen = suspicious_planes(reading)
    side = reading.frame.shape[1] * reading.frame.voxel_mm * INCHES_PER_MM * 0.7
    figure = Figure((side * len(chosen), 2 * side + 0.25))
    axes = figure.subplots(2, len(chosen), squeeze=False)
    for column, z in enumerate(chosen):
        for row in (0, 1):
            _show(axes[row, column], reading.volume_hu[z])
        _overlay(axes[1, column], reading, (z, slice(None), slice(None)), levels=0.0)
        _boxes(axes[1, column], reading, 0, z)
        z_mm = (reading.frame.affine @ [0, 0, z, 1])[2]
        levels = [reading.levels[label - 1].name for label in np.unique(reading.labels[z]) if label]
        words = f"{'+'.join(levels) or 'no level'}, z {z_mm:.0f} mm"
        axes[0, column].set_title(words, loc="left", fontsize=8, color=INK, pad=3)
    figure.subplots_adjust(0, 0, 1, 1 - 0.25 / (2 * side + 0.25), 0.01, 0.01)
    return figure


def suspicious_planes(reading: Reading) -> list[int]:
    """At most five planes of the frame, from the head down, 6 mm apart: the surest lesions, then the hottest slices.

    Without either those through the levels, the likeliest first.
    """
    lesions = [float(index[0]) for index in reading.frame.to_index(_centres(reading))]
    hottest: list[float] = []
    if reading.heat is not None and reading.heat.any():
        hottest = np.argsort(-reading.heat.max(axis=(1, 2)), kind="stable").tolist()
    found = [level for level in reading.levels if level.centre_mm is not None]
    found.sort(key=lambda level: -(level.probability or 0.0))
    through = [float(reading.frame.to_index(np.array(level.centre_mm))[0]) for level in found]
    chosen: list[int] = []
    for place in (*lesions, *hottest, *through, reading.frame.shape[0] / 2):
        z = int(np.clip(round(place), 0, reading.frame.shape[0] - 1))
        if len(chosen) < SLICES and all(abs(z - other) * reading.frame.voxel_mm >= APART_MM for other in chosen):
            chosen.append(z)
    return sorted(chosen)


def draw_spine(reading: Reading) -> Figure:
    """The levels' surfaces, coloured by probability, and the lesions, from the front and from behind."""
    affine = reading.frame.affine
    corners, normals, colours = [], [], []
    for surface, colour in zip(reading.surfaces, level_colours(reading), strict=True):
        if surface is not None:
            places = surface.vertices[:, ::-1] @ affine[:3, :3].T + affine[:3, 3]
            corners.append(places[surface.faces])
            normals.append(_smooth_normals(places, surface.faces))
            colours.append(np.tile(np.array(colour) / 255, (len(surface.faces), 1)))
    # Turned about its own middle, the spine stays in both views wherever the scanner's origin lies.
    middle = np.concatenate(corners).mean(axis=(0, 1))
    faces = np.concatenate(corners) - middle, np.concatenate(normals), np.concatenate(colours)
    figure = Figure((7.5, 6.5), facecolor="white")
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    for axis, angle in zip(axes, SIDES.values(), strict=True):
        _draw_surfaces(axis, *faces, angle)
        _draw_lesions(axis, reading, angle, middle)
    arm = 0.06 * float(np.ptp(axes[0].get_ylim()))
    corner = np.array([axes[0].get_xlim()[0] + 1.6 * arm, axes[0].get_ylim()[0] - 1.2 * arm])
    axes[0].set_ylim(bottom=corner[1] - 1.6 * arm)
    for axis, (words, angle) in zip(axes, SIDES.items(), strict=True):
        _draw_letters(axis, angle, corner, arm)
        axis.set_title(words, loc="left", fontsize=9, color=FAINT)
        blank(axis)
        for level in reading.levels:
            if level.centre_mm is not None:
                up = float(_turned(np.array(level.centre_mm) - middle, angle)[1])
                text = level.name if level.probability is None else f"{level.name} {level.probability:.2f}"
                axis.text(axis.get_xlim()[1], up, text, fontsize=8, color=INK, va="center")
    figure.subplots_adjust(0.01, 0.01, 0.92, 0.95, 0.2)
    return figure


def _turned(places: np.ndarray, angle: float) -> np.ndarray:
    """LPS mm (..., 3) as seen: to the right, up, toward the viewer, who stands before a patient turned by an angle."""
    cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    x, y, z = np.moveaxis(places, -1, 0)
    toward = -sine * x - cosine * y
    raised_cosine, raised_sine = np.cos(np.deg2rad(RAISED)), np.sin(np.deg2rad(RAISED))
    up, toward = raised_cosine * z - raised_sine * toward, raised_cosine * toward + raised_sine * z
    return np.stack([cosine * x - sine * y, up, toward], axis=-1)


def _smooth_normals(places: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(faces, 3) the mean of the normals of a face's vertices, which are those of the faces about them; outward."""
    first, second, third = (places[faces[:, corner]] - places.mean(axis=0) for corner in range(3))
    sides = np.cross(second - first, third - first)
    # The volume that a closed surface encloses is positive where its normals point outward.
    sides *= np.sign(np.einsum("ij,ij->", first, sides)) or 1.0
    of_vertices = np.stack(
        [np.bincount(faces.ravel(), np.repeat(column, 3), minlength=len(places)) for column in sides.T], axis=1
    )
    mean = of_vertices[faces].mean(axis=1)
    return mean / np.maximum(np.linalg.norm(mean, axis=1), 1e-9)[:, None]


def _draw_surfaces(axis: Axes, corners: np.ndarray, normals: np.ndarray, colours: np.ndarray, angle: float) -> None:
    seen, facing = _turned(corners, angle), _turned(normals, angle)
    light = 0.3 + 0.7 * np.abs(facing @ LIGHT)
    # What faces away is hidden by what faces the viewer.
    front = np.flatnonzero(facing[:, 2] > -0.2)
    order = front[np.argsort(seen[front, :, 2].mean(axis=1))]
    shown = (colours * light[:, None]).clip(0, 1)[order]
    flat: Sequence[Any] = list(seen[order][:, :, :2])
    # Edges of the faces' own colour close the hairlines between them.
    axis.add_collection(PolyCollection(flat, facecolors=shown, edgecolors=shown, linewidths=0.3))
    axis.set_aspect("equal")
    axis.autoscale_view()


def _draw_lesions(axis: Axes, reading: Reading, angle: float, middle: np.ndarray) -> None:
    edges = [(a, a | bit) for a in range(8) for bit in (1, 2, 4) if not a & bit]
    for row in reading.lesions.to_dict("records"):
        ends = [[float(row[name]) for name in names] for names in (LEAST, GREATEST)]
        corners = np.array([[ends[n >> axis & 1][axis] for axis in range(3)] for n in range(8)])
        seen = _turned(corners - middle, angle)
        for a, b in edges:
            axis.plot(*seen[[a, b], :2].T, color=LESION, linewidth=1.1)


def _draw_letters(axis: Axes, angle: float, start: np.ndarray, arm: float) -> None:
    """Which way the patient's left, back and head are."""
    for letter, direction in zip("LPS", np.eye(3), strict=True):
        tip = start + arm * _turned(direction, angle)[:2]
        axis.plot(*zip(start, tip, strict=True), color=FAINT, linewidth=1)
        place = start + 1.4 * (tip - start)
        axis.text(place[0], place[1], letter, color=INK, fontsize=8, ha="center", va="center")


def _show(axis: Axes, image: np.ndarray) -> None:
    low, high = WINDOWS["bone"]
    axis.imshow(image, cmap="gray", vmin=low, vmax=high, aspect="equal")
    axis.set_anchor("W")
    blank(axis)


def _overlay(axis: Axes, reading: Reading, cut: tuple[int | slice, ...], levels: float = 0.3) -> None:
    colours = np.zeros((8, 4))
    colours[1:, :3], colours[1:, 3] = np.array(COLOURS) / 255, levels
    axis.imshow(colours[reading.labels[cut]], interpolation="nearest")
    if reading.heat is not None:
        heat = mpl.colormaps["inferno"](reading.heat[cut])
        heat[..., 3] = 0.65 * np.minimum(1, 2 * reading.heat[cut])
        axis.imshow(heat)


def _boxes(axis: Axes, reading: Reading, through: int, at: int) -> None:
    """The lesions that a plane meets: `through` is the axis (z, y, x) across it, `at` its index."""
    down, across = [one for one in range(3) if one != through]
    for row in reading.lesions.to_dict("records"):
        ends = np.array([[float(row[name]) for name in names] for names in (LEAST, GREATEST)])
        corners = np.stack(np.meshgrid(*ends.T), axis=-1).reshape(-1, 3)
        voxels = reading.frame.to_index(corners)
        low, high = voxels.min(axis=0), voxels.max(axis=0)
        if low[through] <= at <= high[through]:
            size = high[across] - low[across], high[down] - low[down]
            axis.add_patch(Rectangle((low[across], low[down]), *size, fill=False, color=LESION, linewidth=1.4))


def _name_levels(axis: Axes, reading: Reading) -> None:
    for place, level in enumerate(reading.levels):
        if level.centre_mm is None:
            continue
        z = reading.frame.to_index(np.array(level.centre_mm))[0]
        text = level.name if level.probability is None else f"{level.name}  {level.probability:.2f}"
        colour = tuple(part / 255 for part in COLOURS[place])
        mark = " !" if level.decision == "fracture" else ""
        edge = reading.frame.shape[1] + 2
        axis.text(edge, z, text + mark, color=colour, fontsize=9, va="center", clip_on=False)


def _centres(reading: Reading) -> np.ndarray:
    """(lesions, 3) LPS mm, the surest first."""
    columns: Sequence[str] = ("x_mm", "y_mm", "z_mm")
    return reading.lesions[list(columns)].to_numpy(float).reshape(-1, 3)
