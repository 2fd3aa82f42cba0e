"""Where the voxels of a study lie in the patient: LPS millimetres, slices ordered cranial to caudal."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Geometry:
    """The frame of parallel slices, cranial to caudal; vectors are LPS (+x left, +y posterior, +z superior).

    `row_direction` points to greater x, `column_direction` to greater y, as in ImageOrientationPatient.
    """

    file_numbers: np.ndarray  # (n,) int: the number by which boxes and slice tables name a slice
    positions_mm: np.ndarray  # (n, 3): centre of the first voxel of each slice
    row_direction: np.ndarray  # (3,)
    column_direction: np.ndarray  # (3,)
    pixel_spacing_mm: tuple[float, float]  # y, x
    thickness_mm: float | None  # as written in the header; slices overlap, so never use it as a distance
    shifts_px: np.ndarray | None = None  # (n, 2) y, x: how far straightening moved each slice from its file's pixels

    @cached_property
    def normal(self) -> np.ndarray:
        """(3,) unit vector across the slices, pointing to the head."""
        return cranial_normal(self.row_direction, self.column_direction)

    @cached_property
    def z_mm(self) -> np.ndarray:
        """(n,) positions along the normal; falls from slice to slice, because greater is more cranial."""
        return self.positions_mm @ self.normal

    @cached_property
    def spacing_mm(self) -> float:
        """Median distance from slice to slice."""
        return float(np.median(-np.diff(self.z_mm)))

    @cached_property
    def affine(self) -> np.ndarray:
        """4x4 matrix from (x, y, z, 1) voxel indices to LPS mm; exact where the slices are evenly spaced."""
        matrix = np.eye(4)
        matrix[:3, 0] = self.row_direction * self.pixel_spacing_mm[1]
        matrix[:3, 1] = self.column_direction * self.pixel_spacing_mm[0]
        matrix[:3, 2] = (self.positions_mm[-1] - self.positions_mm[0]) / (len(self.positions_mm) - 1)
        matrix[:3, 3] = self.positions_mm[0]
        return matrix

    def voxel_to_lps(self, z: Any, y: Any, x: Any) -> np.ndarray:
        """LPS mm (..., 3) of voxel indices, whole or fractional; follows uneven spacing and gantry tilt."""
        z, y, x = np.broadcast_arrays(*(np.asarray(value, float) for value in (z, y, x)))
        index = np.arange(len(self.positions_mm))
        origin = np.stack([np.interp(z, index, self.positions_mm[:, axis]) for axis in range(3)], axis=-1)
        step_y, step_x = self.pixel_spacing_mm
        return origin + (y * step_y)[..., None] * self.column_direction + (x * step_x)[..., None] * self.row_direction

    def from_file_pixels(self, z: Any, y: Any, x: Any) -> tuple[np.ndarray, np.ndarray]:
        """The volume's (y, x) of pixel coordinates in the files of slices `z` (whole numbers), such as a box's."""
        return self._shifted(z, y, x, 1)

    def to_file_pixels(self, z: Any, y: Any, x: Any) -> tuple[np.ndarray, np.ndarray]:
        """Pixel coordinates (y, x) in the files of slices `z`, the inverse of `from_file_pixels`."""
        return self._shifted(z, y, x, -1)

    def _shifted(self, z: Any, y: Any, x: Any, sign: int) -> tuple[np.ndarray, np.ndarray]:
        shift = np.zeros(2) if self.shifts_px is None else sign * self.shifts_px[np.asarray(z)]
        return np.asarray(y, float) + shift[..., 0], np.asarray(x, float) + shift[..., 1]

    def take(self, indices: Sequence[int]) -> "Geometry":
        """The geometry of some of the slices."""
        chosen = list(indices)
        return replace(
            self,
            file_numbers=self.file_numbers[chosen],
            positions_mm=self.positions_mm[chosen],
            shifts_px=None if self.shifts_px is None else self.shifts_px[chosen],
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; `from_json` gives the same geometry back to the last bit."""
        return {
            "file_numbers": self.file_numbers.tolist(),
            "positions_mm": self.positions_mm.tolist(),
            "row_direction": self.row_direction.tolist(),
            "column_direction": self.column_direction.tolist(),
            "pixel_spacing_mm": list(self.pixel_spacing_mm),
            "thickness_mm": self.thickness_mm,
            "shifts_px": None if self.shifts_px is None else self.shifts_px.tolist(),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Geometry":
        """The geometry that `to_json` wrote."""
        return cls(
            file_numbers=np.array(values["file_numbers"], int),
            positions_mm=np.array(values["positions_mm"], float),
            row_direction=np.array(values["row_direction"], float),
            column_direction=np.array(values["column_direction"], float),
            pixel_spacing_mm=(values["pixel_spacing_mm"][0], values["pixel_spacing_mm"][1]),
            thickness_mm=values["thickness_mm"],
            shifts_px=None if values["shifts_px"] is None else np.array(values["shifts_px"], float),
        )


def cranial_normal(row_direction: Any, column_direction: Any) -> np.ndarray:
    """(3,) unit normal of a slice, of the two the one with a positive LPS z component."""
    normal = np.cross(row_direction, column_direction)
    normal = normal / np.linalg.norm(normal)
    return -normal if normal[2] < 0 else normal


def order_slices(positions_mm: Any, row_direction: Any, column_direction: Any) -> np.ndarray:
    """(n,) indices that put slices in order from cranial to caudal; slices at one place keep their order."""
    z_mm = np.asarray(positions_mm, float) @ cranial_normal(row_direction, column_direction)
    return np.argsort(-z_mm, kind="stable")


def number_files(files: Sequence[Path], instance_numbers: Sequence[int | None]) -> list[int]:
    """The number of each file: its stem (RSNA), else InstanceNumber, else its place in the order given.

    One rule serves a whole folder, so that two rules can never give two files the same number.
    """
    stems = [int(file.stem) for file in files if file.stem.isdecimal()]
    if len(stems) == len(set(stems)) == len(files):
        return stems
    instances = [number for number in instance_numbers if number is not None]
    if len(instances) == len(set(instances)) == len(files):
        return instances
    return list(range(1, len(files) + 1))
