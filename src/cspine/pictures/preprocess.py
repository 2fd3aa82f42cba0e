"""One study before and after each step of the preprocessing, as an axial slice and a sagittal reformat."""

from dataclasses import dataclass, replace

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle

from cspine.config import Preprocess
from cspine.data.body import BODY_HU, body_mask
from cspine.data.denoise import grey_classes, region_means
from cspine.data.dicom import Study
from cspine.data.kmeans import study_splits
from cspine.data.preprocess import Plan, cut, kmeans_threshold_hu, plan_study, sample_indices
from cspine.pictures.canvas import FAINT, INK, MARK, show
from cspine.windows import WINDOWS

COLUMNS = 5
COLUMN_IN = 2.5  # width of a column
TITLE_IN = 0.5


@dataclass(frozen=True)
class Panel:
    """One step. `axial` is (y, x), `sagittal` (z, y); sizes are in mm."""

    title: str
    note: str
    axial: np.ndarray
    sagittal: np.ndarray
    axial_mm: tuple[float, float]
    sagittal_mm: tuple[float, float]
    limits: tuple[float, float] = (0, 255)
    colours: str = "gray"
    frame_mm: tuple[float, float, float, float] | None = None  # left, top, width, height in the axial slice


@dataclass(frozen=True)
class Subject:
    """The study, what it decides by itself, and the slice to show."""

    study: Study
    plan: Plan
    index: int


def draw_preprocess(study: Study, config: Preprocess, at: float = 0.5) -> Figure:
    """Ten panels: HU, windows, masks, classes, region means, and what the config makes of it all.

    `at` is the place of the axial slice, 0 the most cranial and 1 the most caudal.
    """
    plan = replace(plan_study(study.volume, study.geometry, config), splits_hu=_splits(study, config))
    return _layout(_panels(Subject(study, plan, round(at * (len(study.volume) - 1))), config))


def _splits(study: Study, config: Preprocess) -> np.ndarray:
    return study_splits(study.volume[:: sample_indices(len(study.volume)).step], config.kmeans_classes)


def _panels(subject: Subject, config: Preprocess) -> list[Panel]:
    plain = replace(config, mask="none", denoise="none")
    means = replace(plain, denoise="region_mean")
    title = f"Region means of {len(subject.plan.splits_hu) + 1} classes"
    made = [_whole(subject, subject.study.volume, "HU, the whole slice", _side(subject))]
    made += [
        _cut(subject, plain, name, f"Window {name}", f"{low:g} to {high:g} HU") for name, (low, high) in WINDOWS.items()
    ]
    made.append(_masked(subject, config.mask_threshold_hu, "Body by threshold"))
    made.append(_masked(subject, kmeans_threshold_hu(subject.plan.splits_hu), "Body by K-means"))
    made.append(_classes(subject, plain))
    made += [_cut(subject, means, name, title, f"{name}; {_change(subject)}") for name in ("wide", "soft_tissue")]
    settings = f"{config.windows[0]}, mask {config.mask}, denoise {config.denoise}"
    made.append(_cut(subject, config, config.windows[0], "As configured", settings))
    return made


def _whole(subject: Subject, volume: np.ndarray, title: str, note: str) -> Panel:
    """A volume in HU, uncut; the frame is the square that is cut out."""
    geometry, crop = subject.study.geometry, subject.plan.crop
    depth, rows, columns = volume.shape
    step_y, step_x = geometry.pixel_spacing_mm
    middle = int(np.clip(crop.left + crop.width // 2, 0, columns - 1))
    return Panel(
        title,
        note,
        volume[subject.index],
        volume[:, :, middle],
        (rows * step_y, columns * step_x),
        (depth * geometry.spacing_mm, rows * step_y),
        (-1000, 800),
        frame_mm=(crop.left * step_x, crop.top * step_y, crop.width * step_x, crop.height * step_y),
    )


def _side(subject: Subject) -> str:
    return f"the square of {_side_mm(subject):.0f} mm is cut out"


def _side_mm(subject: Subject) -> float:
    return subject.plan.crop.height * subject.study.geometry.pixel_spacing_mm[0]


def _masked(subject: Subject, threshold_hu: float, title: str) -> Panel:
    """The whole slice, with what is no body left out."""
    study = subject.study
    spacing = study.geometry.pixel_spacing_mm
    body = np.array([body_mask(pixels, threshold_hu, spacing) for pixels in study.volume])
    return _whole(subject, np.ma.masked_where(~body, study.volume), title, f"above {threshold_hu:g} HU; blue is zero")


def _cut(subject: Subject, config: Preprocess, window: str, title: str, note: str) -> Panel:
    """One window of what the models get."""
    volume = cut(subject.study.volume, subject.plan, replace(config, windows=(window,)))[:, 0]
    side_mm, depth_mm = _side_mm(subject), len(volume) * subject.study.geometry.spacing_mm
    sagittal = volume[:, :, volume.shape[2] // 2]
    return Panel(title, note, volume[subject.index], sagittal, (side_mm, side_mm), (depth_mm, side_mm))


def _classes(subject: Subject, plain: Preprocess) -> Panel:
    """The classes of grey as levels of colour, each slice cut like the others."""
    splits_hu = subject.plan.splits_hu
    levels = np.array([grey_classes(pixels, splits_hu) for pixels in subject.study.volume]).astype(np.int16)
    as_volume = replace(subject, study=replace(subject.study, volume=levels))
    note = "split at " + ", ".join(f"{split:.0f}" for split in splits_hu) + " HU"
    window = f"0..{max(1, len(splits_hu))}"
    return replace(_cut(as_volume, plain, window, f"{len(splits_hu) + 1} classes by K-means", note), colours="viridis")


def _change(subject: Subject) -> str:
    """How much the region means change the tissue of the slice."""
    before = subject.study.volume[subject.index]
    change = np.abs(region_means(before, subject.plan.splits_hu).astype(int) - before)
    return f"change {change[before > BODY_HU].mean():.0f} HU" if (before > BODY_HU).any() else "no tissue"


def _layout(panels: list[Panel]) -> Figure:
    rows = -(-len(panels) // COLUMNS)
    tall = panels[1].sagittal_mm[0] / panels[1].axial_mm[0]
    height = rows * (COLUMN_IN * (1 + tall) + TITLE_IN)
    figure = Figure(
        figsize=(COLUMNS * COLUMN_IN, height),
        layout=ConstrainedLayoutEngine(rect=(0, 0, 1, 1 - 0.15 / height)),
        facecolor="white",
    )
    axes = figure.subplots(2 * rows, COLUMNS, squeeze=False, height_ratios=[1, tall] * rows)
    for number, panel in enumerate(panels):
        row, column = 2 * (number // COLUMNS), number % COLUMNS
        above, below = axes[row][column], axes[row + 1][column]
        show(above, panel.axial, panel.axial_mm, panel.limits, panel.colours)
        show(below, panel.sagittal, panel.sagittal_mm, panel.limits, panel.colours)
        above.set_title(panel.title, fontsize=10, color=INK, loc="left", pad=14, fontweight="bold")
        note = above.text(0, 1.02, panel.note, transform=above.transAxes, fontsize=8, color=FAINT)
        note.set_in_layout(False)  # else a long one would push the columns apart
        if panel.frame_mm is not None:
            left, top, width, high = panel.frame_mm
            above.add_patch(Rectangle((left, top), width, high, fill=False, color=MARK, lw=1.2))
            below.add_patch(Rectangle((top, 0), high, panel.sagittal_mm[0], fill=False, color=MARK, lw=1.2))
    return figure
