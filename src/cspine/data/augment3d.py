"""Random transforms of 3-D windows with their labels, strong enough to carry from one kind of scan to another."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch.nn.functional import affine_grid, grid_sample

from cspine.config import Volume, VolumeAugment
from cspine.windows import window_hu

SOFT_TISSUE_HU = 60.0  # of muscle; what is denser is mostly bone


class Pose(NamedTuple):
    """Where a window lies in a volume: centre offset in voxels (z, y, x) from the volume's own, and a 3x3 matrix.

    The matrix takes offsets in the window to offsets in the volume.
    """

    offset: np.ndarray
    matrix: np.ndarray


class VolumeAugmenter:
    """Cuts a random window out of a study's grid; equal seeds give equal results."""

    def __init__(self, settings: VolumeAugment, volume: Volume, windows: Sequence[str] = ("wide",)) -> None:
        """`windows` are those of the channels: they say which grey is bone."""
        self.settings, self.volume, self.windows = settings, volume, windows

    def __call__(self, pixels: np.ndarray, levels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """uint8 windows (channels, z, y, x) and (z, y, x) of grids (channels, planes, y, x) and (planes, y, x)."""
        rng = np.random.default_rng(seed)
        pose = self._draw_pose(len(levels), rng)
        target = sample(levels[None], pose, self.volume.window_px, "nearest")[0]
        image, blank = self._seen(pixels, pose, rng)
        target[blank] = 0
        return image, np.rint(target).astype(np.uint8)

    def around(self, pixels: np.ndarray, middle: float, seed: int) -> np.ndarray:
        """A uint8 window (channels, z, y, x) of a grid (channels, planes, y, x) that lies about a plane of it."""
        rng = np.random.default_rng(seed)
        return self._seen(pixels, self._draw_pose(pixels.shape[1], rng, middle), rng)[0]

    def _seen(self, pixels: np.ndarray, pose: Pose, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The window as another scan might show it, and which of its voxels that scan would not reach."""
        image = sample(pixels, pose, self.volume.window_px, "bilinear")
        blank = self._draw_blank(rng)
        image[:, blank] = 0
        self._cut_out(image, rng)
        density = (1 + self.settings.bone) ** rng.uniform(-1, 1)
        for channel, window in enumerate(self.windows):
            image[channel] = self._repaint(with_density(image[channel], density, window), rng)
        return np.rint(image.clip(0, 255)).astype(np.uint8), blank

    def _draw_pose(self, planes: int, rng: np.random.Generator, middle: float | None = None) -> Pose:
        settings, depth = self.settings, self.volume.window_px[0]
        zoom = (1 + settings.zoom) ** rng.uniform(-1, 1)
        mirrored = np.diag([1, 1, -1 if rng.random() < settings.flip else 1])
        matrix = rotation(rng.uniform(-settings.rotate_deg, settings.rotate_deg, 3)) @ mirrored / zoom
        centre = (planes - 1) / 2
        if middle is None:
            # Windows end anywhere in the study, and some hang over its ends by a quarter of their depth.
            middle, reach = centre, max(0.0, (planes - depth / zoom) / 2) + depth / zoom / 4
        else:
            reach = settings.shift_z_mm / self.volume.voxel_mm
        limits = np.array(
            [reach, settings.shift_y_mm / self.volume.voxel_mm, settings.shift_x_mm / self.volume.voxel_mm]
        )
        offset = rng.uniform(-limits, limits)
        offset[0] += middle - centre
        return Pose(offset, matrix)

    def _draw_blank(self, rng: np.random.Generator) -> np.ndarray:
        """What another scan would not reach, bool (z, y, x): planes at the ends, a margin around a smaller field."""
        sides = self.volume.window_px
        blank = np.zeros(sides, bool)
        for end in (slice(None), slice(None, None, -1)):
            if rng.random() < self.settings.cut_ends:
                blank[end][: rng.integers(1, max(2, sides[0] // 3))] = True
        if rng.random() < self.settings.cut_field:
            for axis in (1, 2):
                margin = rng.integers(0, sides[axis] // 5 + 1)
                np.moveaxis(blank, axis, 0)[:margin] = True
                np.moveaxis(blank, axis, 0)[sides[axis] - margin :] = True
        return blank

    def _cut_out(self, image: np.ndarray, rng: np.random.Generator) -> None:
        """Block out boxes of one grey value each: the levels beneath are still to be found, from what is around."""
        longest = self.settings.cut_out_mm / self.volume.voxel_mm
        for _ in range(rng.integers(0, self.settings.cut_outs + 1)):
            edges = rng.uniform(1, max(1.0, longest), 3).astype(int)
            first = [
                rng.integers(-edge // 2, side - edge // 2) for edge, side in zip(edges, image.shape[1:], strict=True)
            ]
            box = tuple(slice(max(0, f), max(0, f + edge)) for f, edge in zip(first, edges, strict=True))
            image[(slice(None), *box)] = rng.uniform(0, 255)

    def _repaint(self, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Grey values (z, y, x) of another scanner: sharpness, gamma, gain, offset, noise."""
        settings = self.settings
        if settings.blur_mm:
            # A scan is as sharp along x as along y.
            across, within = rng.uniform(0, settings.blur_mm, 2) / self.volume.voxel_mm
            values = gaussian_filter(values, (across, within, within), truncate=3)
        values = (values / 255).clip(0, 1) ** ((1 + settings.gamma) ** rng.uniform(-1, 1))
        values = values * rng.uniform(1 - settings.gain, 1 + settings.gain)
        values = values + rng.uniform(-settings.offset, settings.offset)
        noise = rng.standard_normal(values.shape, np.float32) * rng.uniform(0, settings.noise)
        return 255 * (values + noise)


def with_density(values: np.ndarray, density: float, window: str) -> np.ndarray:
    """Grey values (z, y, x) of a window with all that is denser than soft tissue `density` times as far above it."""
    low, high = window_hu(window)
    soft = 255 * (SOFT_TISSUE_HU - low) / (high - low)
    return np.where(values > soft, soft + (values - soft) * density, values)


def rotation(angles_deg: np.ndarray) -> np.ndarray:
    """3x3 rotation matrix over (z, y, x): about z, then y, then x."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(angles_deg)):
        one, other = (index for index in range(3) if index != axis)
        turn = np.eye(3)
        turn[[one, other], [one, other]] = np.cos(angle)
        turn[one, other], turn[other, one] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def sample(volume: np.ndarray, pose: Pose, window_px: tuple[int, ...], mode: str) -> np.ndarray:
    """float32 (channels, *window_px) of a volume (channels, z, y, x) at a pose; 0 beyond the volume."""
    sizes, window = np.array(volume.shape[1:]), np.array(window_px)
    # torch counts x, y, z, in halves of each side.
    scaled = (pose.matrix * window)[::-1, ::-1] / sizes[::-1, None]
    theta = np.column_stack([scaled, (2 * pose.offset / sizes)[::-1]])
    grid = affine_grid(torch.from_numpy(theta[None].astype(np.float32)), [1, 1, *window_px], align_corners=False)
    values = torch.from_numpy(volume[None].astype(np.float32))
    return grid_sample(values, grid, mode=mode, padding_mode="zeros", align_corners=False)[0].numpy()


def cut_window(volume: np.ndarray, start: int, window_px: tuple[int, ...]) -> np.ndarray:
    """(channels, *window_px) of a volume (channels, z, y, x) as it is: from plane `start`, in the middle of y and x.

    0 beyond the volume.
    """
    window = np.zeros((len(volume), *window_px), volume.dtype)
    target, source = _where(start, volume.shape[1:], window_px)
    window[(slice(None), *target)] = volume[(slice(None), *source)]
    return window


def put_window(window: np.ndarray, start: int, shape: tuple[int, ...]) -> np.ndarray:
    """(channels, *shape) with the values of a window (channels, z, y, x) where `cut_window` takes them from, else 0."""
    volume = np.zeros((len(window), *shape), window.dtype)
    target, source = _where(start, shape, window.shape[1:])
    volume[(slice(None), *source)] = window[(slice(None), *target)]
    return volume


def _where(start: int, shape: tuple[int, ...], window_px: tuple[int, ...]) -> tuple[tuple[slice, ...], ...]:
    """The part of a window that lies in a volume of `shape`, and that part of the volume."""
    starts = [start, *((size - side) // 2 for size, side in zip(shape[1:], window_px[1:], strict=True))]
    pairs = [_overlap(first, side, size) for first, side, size in zip(starts, window_px, shape, strict=True)]
    return tuple(target for target, _ in pairs), tuple(source for _, source in pairs)


def _overlap(first: int, side: int, size: int) -> tuple[slice, slice]:
    """Where a line of `side` from `first` on overlaps one of `size`, counted in each."""
    begin, end = max(0, first), max(0, min(size, first + side))
    return slice(begin - first, max(begin, end) - first), slice(begin, max(begin, end))
