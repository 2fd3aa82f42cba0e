"""What the random transforms make of a slice: each alone, then several samples, with a mask and a box that follow."""

from dataclasses import dataclass, fields, replace

import cv2
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cspine.config import Augment, Config
from cspine.data.augment import Augmented, Augmenter
from cspine.data.dicom import Study
from cspine.data.mixup import draw_partner, mix
from cspine.data.preprocess import preprocess
from cspine.data.slices import channels, neighbour_indices, slice_image
from cspine.pictures.canvas import FAINT, INK, MARK, SECOND, blank
from cspine.windows import window_hu

TRANSFORMS = [item.name for item in fields(Augment) if item.name not in ("share", "mixup")]
OFF = Augment(share=1.0, mixup=0.0, **dict.fromkeys(TRANSFORMS, 0.0))
# Drawn where the config has a transform switched off.
SHOWN = {
    "horizontal_flip": 1.0,
    "vertical_flip": 1.0,
    "rotate_deg": 15.0,
    "shift_x": 0.1,
    "shift_y": 0.1,
    "scale": 0.1,
    "distortion": 0.3,
    "brightness": 0.2,
    "contrast": 0.2,
    "blur_px": 2.0,
    "noise": 0.1,
    "cut_out": 0.5,
    "mixup": 1.0,
}
COLUMNS, SAMPLES = 5, 6
CELL_IN = 2.2
DRAWS = 12  # of which the strongest is shown
BONE_HU = 200


@dataclass(frozen=True)
class Sample:
    """A slice as the model sees it, uint8 (y, x, channels), its mask (y, x) and boxes (n, 4), and a slice to mix in."""

    image: np.ndarray
    mask: np.ndarray
    boxes: np.ndarray
    other: np.ndarray


def draw_augment(study: Study, config: Config, at: float = 0.5) -> Figure:
    """A grid: the original, each transform alone, then samples as the config draws them.

    `at` is the place of the slice, 0 the most cranial and 1 the most caudal.
    """
    sample = _sample_at(study, config, at)
    cells = [("original", "", Augmented(sample.image, sample.mask, sample.boxes))]
    for name in (*TRANSFORMS, "mixup"):
        strength = getattr(config.augment, name)
        shown = strength or SHOWN[name]
        note = f"{shown:g}" if strength else f"{shown:g} here, else off"
        cells.append((name, note, _strongest(sample, replace(OFF, **{name: shown}))))
    for seed in range(SAMPLES):
        cells.append((f"sample {seed + 1}", "as configured", _draw(sample, config.augment, seed)))
    return _layout(cells, _shown_channel(config))


def _sample_at(study: Study, config: Config, at: float) -> Sample:
    volume = preprocess(study.volume, study.geometry, config.preprocess)
    last = len(volume) - 1
    chosen = np.rint([at * last, (at * last + last / 4) % last]).astype(int)
    rows = neighbour_indices(study.geometry.z_mm, chosen, config.data)
    image, other = (slice_image(volume, row, config.data) for row in rows)
    low, high = window_hu(config.preprocess.windows[0])
    shown = _shown(image, config)
    mask = _central_piece(shown > (BONE_HU - low) / (high - low) * 255)
    return Sample(image, mask, np.array([cv2.boundingRect(mask)], float), other)


def _shown_channel(config: Config) -> int:
    windows = len(config.preprocess.windows)
    return channels(config) // 2 // windows * windows


def _shown(image: np.ndarray, config: Config) -> np.ndarray:
    """The first window of the middle slice."""
    return image[..., _shown_channel(config)]


def _central_piece(bone: np.ndarray) -> np.ndarray:
    """The large piece of bone nearest to the middle, uint8 (y, x): on most slices a vertebra."""
    joined = cv2.morphologyEx(bone.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    count, labels, stats, centroids = cv2.connectedComponentsWithStats(joined)
    large = [piece for piece in range(1, count) if stats[piece, cv2.CC_STAT_AREA] > 0.005 * bone.size]
    if not large:
        middle = np.zeros(bone.shape, np.uint8)
        middle[tuple(slice(side // 3, 2 * side // 3) for side in bone.shape)] = 1
        return middle
    centre = np.array(bone.shape[::-1]) / 2
    nearest = min(large, key=lambda piece: float(np.hypot(*(centroids[piece] - centre))))
    return (labels == nearest).astype(np.uint8)


def _draw(sample: Sample, settings: Augment, seed: int) -> Augmented:
    augmenter = Augmenter(settings)
    made = augmenter(sample.image, seed, sample.mask, sample.boxes)
    if not settings.mixup or not augmenter.takes(seed):
        return made
    partner = draw_partner(seed, settings.mixup, count=1)
    other = augmenter(sample.other, partner.seed).image
    mixed = mix({"image": torch.from_numpy(made.image)}, {"image": torch.from_numpy(other)}, partner.weight)
    return made._replace(image=mixed["image"].numpy())


def _strongest(sample: Sample, settings: Augment) -> Augmented:
    """Of some draws the one that changes the image most."""
    draws = [_draw(sample, settings, seed) for seed in range(DRAWS)]
    return max(draws, key=lambda made: float(np.abs(made.image.astype(int) - sample.image).mean()))


def _layout(cells: list[tuple[str, str, Augmented]], channel: int) -> Figure:
    rows = -(-len(cells) // COLUMNS)
    figure = Figure(figsize=(COLUMNS * CELL_IN, rows * (CELL_IN + 0.4)), layout="constrained", facecolor="white")
    axes = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for axis in axes:
        blank(axis)
    for axis, (title, note, made) in zip(axes, cells, strict=False):
        _show(axis, made, channel)
        axis.set_title(title, fontsize=10, color=INK, loc="left", fontweight="bold")
        axis.set_title(note, fontsize=8, color=FAINT, loc="right")
    return figure


def _show(axis: Axes, made: Augmented, channel: int) -> None:
    axis.imshow(made.image[..., channel], cmap="gray", vmin=0, vmax=255)
    if made.mask is not None and made.mask.any():
        axis.contour(made.mask, levels=[0.5], colors=[SECOND], linewidths=0.8)
    for x, y, width, height in [] if made.boxes is None else made.boxes:
        axis.add_patch(Rectangle((x - 0.5, y - 0.5), width, height, fill=False, color=MARK, lw=1.2))
