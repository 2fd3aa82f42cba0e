"""The volume under construction, and how a solid is painted into it."""

import math
from dataclasses import astuple, dataclass, field

import numpy as np
from numba import njit
from scipy import ndimage

from cspine.phantom.cracks import CRACK_SIZE, MARROW_HU, bend, fit_to_grid, smooth_step
from cspine.phantom.solids import bounding_box, noise_at, primitive_distance, solid_distance

NOISE_SIDE = 64
BLOCK = 4
SUPER = 4 * BLOCK
FAR_MM = 1e3
JOINT_MM = 2.0  # distances beyond this are of no use to any joint
FARTHEST_FRAGMENT_MM = 7.0


@dataclass(frozen=True)
class Grid:
    """Voxel (z, y, x) = (0, 0, 0) lies at `origin` (x, y, z), LPS mm; index z runs downwards, cranial to caudal."""

    shape: tuple[int, int, int]
    spacing_mm: float
    pixel_mm: float
    origin: tuple[float, float, float]

    @property
    def numbers(self) -> np.ndarray:
        return np.array([*self.origin, self.spacing_mm, self.pixel_mm])

    def z_mm(self) -> np.ndarray:
        return self.origin[2] - self.spacing_mm * np.arange(self.shape[0])

    def index_box(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """The voxels inside the LPS box from `low` to `high`: first and last + 1 for z, y, x."""
        x, y, z = self.origin
        first = [(z - high[2]) / self.spacing_mm, (low[1] - y) / self.pixel_mm, (low[0] - x) / self.pixel_mm]
        last = [(z - low[2]) / self.spacing_mm, (high[1] - y) / self.pixel_mm, (high[0] - x) / self.pixel_mm]
        shape = np.array(self.shape)
        return np.stack([np.clip(np.floor(first), 0, shape), np.clip(np.ceil(last) + 1, 0, shape)]).astype(np.int64)


@dataclass(frozen=True)
class Frame:
    """Where a solid stands: the LPS position in mm of its origin, and its axes x, y, z as the rows of a rotation."""

    origin: np.ndarray
    axes: np.ndarray

    def to_world(self, points: np.ndarray) -> np.ndarray:
        return self.origin + points @ self.axes


@dataclass(frozen=True)
class Material:
    """A shell of `cortex_mm` around a core; `surface_mm` is its roughness, `joint_mm` is kept free of other bones.

    Behind `back_y_mm` of the solid's frame the shell is `back_cortex_mm` thick, and denser: the arch of a vertebra is
    mostly cortical bone. Beyond `end_z_mm` above and below the frame's origin the core gains `end_hu` (end plates).
    """

    cortex_hu: float = 850.0
    core_hu: float = 280.0
    cortex_mm: float = 1.0
    texture_hu: float = 45.0
    surface_mm: float = 0.22
    joint_mm: float = 1.4
    back_y_mm: float = 1e3
    back_cortex_mm: float = 1.0
    end_z_mm: float = 1e3
    end_hu: float = 0.0

    @property
    def numbers(self) -> np.ndarray:
        """The fields in their order, as `_bone` and `_paint` index them."""
        return np.array(astuple(self))


@dataclass
class Canvas:
    """HU, distance in mm to the nearest bone, vertebra label, and fracture truth (0 none, else the crack's id)."""

    grid: Grid
    noise: np.ndarray
    hu: np.ndarray = field(init=False)
    distance: np.ndarray = field(init=False)
    label: np.ndarray = field(init=False)
    truth: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.hu = np.full(self.grid.shape, -1000.0, np.float32)
        self.distance = np.full(self.grid.shape, FAR_MM, np.float32)
        self.label = np.zeros(self.grid.shape, np.uint8)
        self.truth = np.zeros(self.grid.shape, np.uint8)

    def paint(
        self,
        primitives: list[np.ndarray],
        frame: Frame,
        material: Material,
        label: int = 0,
        cracks: np.ndarray | None = None,
        soft: bool = False,
    ) -> None:
        """Paint one solid over what is there; `soft` solids do not keep bones away from themselves."""
        rows = np.stack(primitives)
        grid, margin = self.grid, 4.0
        if cracks is None:
            cracks = np.zeros((0, CRACK_SIZE))
        else:
            cracks = fit_to_grid(cracks, frame.axes, grid.spacing_mm, grid.pixel_mm)
            margin += FARTHEST_FRAGMENT_MM
        low, high = bounding_box(rows)
        corners = np.stack(np.meshgrid(*np.stack([low - margin, high + margin]).T), -1).reshape(-1, 3)
        world = frame.to_world(corners)
        limits = grid.index_box(world.min(0), world.max(0))
        _paint(
            (self.hu, self.distance, self.label, self.truth),
            grid.numbers,
            limits,
            (frame.origin, np.ascontiguousarray(frame.axes)),
            rows,
            cracks,
            material.numbers,
            self.noise,
            label,
            soft,
        )


def noise_table(rng: np.random.Generator) -> np.ndarray:
    """A periodic cube of smooth noise with mean 0 and deviation 1, for `noise_at`."""
    raw = rng.standard_normal((NOISE_SIDE,) * 3).astype(np.float32)
    smooth = ndimage.gaussian_filter(raw, 0.9, mode="wrap")
    return smooth / smooth.std()


@njit(cache=True, fastmath=True)
def _paint(arrays, numbers, limits, frame, rows, cracks, material, noise, label, soft):
    """Paint a solid block by block, with only the primitives that can reach into the block.

    Blocks lie in super-blocks, so that most of the space around a solid is left out at once.
    """
    low, high = np.empty(3, np.int64), np.empty(3, np.int64)
    about, near = np.empty_like(rows), np.empty_like(rows)
    # A soft solid of one density needs no look at the voxels deep inside it.
    plain = soft and material[3] == 0.0 and material[0] == material[1]
    margin = (0.5 if soft else JOINT_MM) + 4.0 * material[4] + (FARTHEST_FRAGMENT_MM if cracks.shape[0] else 0.0)
    for k in range(limits[0, 0], limits[1, 0], SUPER):
        for j in range(limits[0, 1], limits[1, 1], SUPER):
            for i in range(limits[0, 2], limits[1, 2], SUPER):
                count = _gather((k, j, i), SUPER, numbers, frame, rows, margin, about)
                if count == 0:
                    continue
                for bk in range(k, min(k + SUPER, limits[1, 0]), BLOCK):
                    for bj in range(j, min(j + SUPER, limits[1, 1]), BLOCK):
                        for bi in range(i, min(i + SUPER, limits[1, 2]), BLOCK):
                            here = _gather((bk, bj, bi), BLOCK, numbers, frame, about[:count], margin, near)
                            if here == 0:
                                continue
                            low[0], low[1], low[2] = bk, bj, bi
                            for axis in range(3):
                                high[axis] = min(low[axis] + BLOCK, limits[1, axis])
                            if plain and _deep(low, numbers, frame, near[:here], margin):
                                arrays[0][bk : high[0], bj : high[1], bi : high[2]] = material[1]
                                continue
                            _paint_block(
                                arrays, numbers, low, high, frame, near[:here], cracks, material, noise, label, soft
                            )


@njit(cache=True, fastmath=True)
def _gather(corner, side, numbers, frame, rows, margin, near):
    """Copy the primitives that can reach a block to `near`; their number, 0 if none of them adds."""
    half_z, half = 0.5 * side * numbers[3], 0.5 * side * numbers[4]
    reach = math.sqrt(half_z * half_z + 2.0 * half * half) + margin
    x, y, z = _local(corner[0] + 0.5 * side, corner[1] + 0.5 * side, corner[2] + 0.5 * side, numbers, frame)
    count, adding = 0, 0
    for r in range(rows.shape[0]):
        # First-order distances can overshoot, hence the factor. A blend lifts the surface by a quarter of its radius.
        away = 0.7 * primitive_distance(x, y, z, rows, r) - reach
        if away < rows[r, 2]:
            near[count] = rows[r]
            count += 1
            adding += rows[r, 1] > 0 and away < 0.25 * rows[r, 2]
    return count if adding else 0


@njit(cache=True, fastmath=True)
def _deep(low, numbers, frame, rows, margin):
    """Whether a block lies inside a solid with all its voxels, with a margin as distances inside are not exact."""
    x, y, z = _local(low[0] + 0.5 * BLOCK, low[1] + 0.5 * BLOCK, low[2] + 0.5 * BLOCK, numbers, frame)
    return 0.5 * solid_distance(x, y, z, rows) < -BLOCK * (0.5 * numbers[3] + numbers[4]) - margin


@njit(cache=True, fastmath=True)
def _local(k, j, i, numbers, frame):
    """Voxel indices to the millimetres of a frame."""
    origin, axes = frame
    wx = numbers[0] + i * numbers[4] - origin[0]
    wy = numbers[1] + j * numbers[4] - origin[1]
    wz = numbers[2] - k * numbers[3] - origin[2]
    x = axes[0, 0] * wx + axes[0, 1] * wy + axes[0, 2] * wz
    y = axes[1, 0] * wx + axes[1, 1] * wy + axes[1, 2] * wz
    z = axes[2, 0] * wx + axes[2, 1] * wy + axes[2, 2] * wz
    return x, y, z


@njit(cache=True, fastmath=True)
def _bone(x, y, z, d, extra, material, noise, ramp):
    """HU of a solid at a depth of -d mm under its surface."""
    if material[3] == 0.0:
        shell = smooth_step((material[2] - 0.5 * ramp + 0.5 + d) / 1.0)
        return material[1] + (material[0] - material[1]) * shell
    # Trabeculae run along the load, so the texture is longer in z.
    grain = material[3] * noise_at(noise, x / 0.9, y / 0.9, z / 1.6)
    patch = noise_at(noise, x / 6.0, y / 6.0, z / 6.0)
    behind = smooth_step((y - material[6]) / 5.0)
    core = material[1] * (1.0 + 0.4 * behind) + 1.3 * grain + material[3] * patch + extra
    core += material[9] * smooth_step((abs(z) - material[8]) / 2.0)
    thick = material[2] + (material[7] - material[2]) * behind + 0.25 * patch
    shell = smooth_step((thick - 0.5 * ramp + 0.5 + d) / 1.0)
    return core + (material[0] * (1.0 + 0.2 * behind) + 1.5 * grain - core) * shell


@njit(cache=True, fastmath=True)
def _paint_block(arrays, numbers, low, high, frame, rows, cracks, material, noise, label, soft):
    hu, distance, labels, truth = arrays
    ramp = 0.9 * numbers[4]
    for k in range(low[0], high[0]):
        for j in range(low[1], high[1]):
            for i in range(low[2], high[2]):
                x, y, z = _local(k, j, i, numbers, frame)
                gap, hit, extra = 0.0, 0.0, 0.0
                if cracks.shape[0]:
                    x, y, z, gap, hit, extra = bend(x, y, z, cracks, noise)
                d = solid_distance(x, y, z, rows)
                if d > JOINT_MM or (soft and d > ramp + 4.0 * material[4]):
                    continue
                if material[4] > 0 and abs(d) < 3.0:
                    d += material[4] * noise_at(noise, x / 3.0, y / 3.0, z / 3.0 + 0.37 * label)
                if not soft:
                    d = max(d, material[5] - distance[k, j, i])
                    distance[k, j, i] = min(distance[k, j, i], d)
                share = min(max(0.5 - d / ramp, 0.0), 1.0)
                if share <= 0:
                    continue
                bone = _bone(x, y, z, d, extra, material, noise, ramp)
                if gap > 0:
                    bone += gap * (MARROW_HU - bone)
                hu[k, j, i] += share * (bone - hu[k, j, i])
                if share >= 0.5 and label:
                    labels[k, j, i] = label
                    if hit > 0:
                        truth[k, j, i] = int(hit)
