"""What a study is, however it is stored: a volume in HU, where it lies, what was left out; or why there is none."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cspine.data.geometry import Geometry
from cspine.data.header import Header
from cspine.errors import UserError

MIN_SLICES = 3
# The models know axial slices. Up to this angle slices are used as they lie, in their own axes.
AXIAL_LIMIT_DEG = 45.0


class StudyError(UserError):
    """A path that gives no volume; `skipped` lists its files with the reason for each."""

    def __init__(self, path: Path, reason: str, skipped: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason, self.skipped = path, reason, skipped

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions with arguments of their own cross process borders only so.
        return type(self), (self.path, self.reason, self.skipped)


@dataclass(frozen=True, eq=False)
class Stack:
    """The usable slices of a study in order, before any pixel is decoded; a NIfTI file has no `headers`."""

    headers: tuple[Header, ...]
    geometry: Geometry
    skipped: tuple[tuple[str, str], ...]
    shape: tuple[int, int, int]  # z, y, x

    def slice_name(self, index: int) -> str:
        """What to call a slice in a message: its file, or its number in a NIfTI file."""
        return self.headers[index].file.name if self.headers else f"slice {self.geometry.file_numbers[index]}"


@dataclass(frozen=True, eq=False)
class Study:
    """A decoded study: int16 HU (z, y, x), its place in the patient, and (file name, reason) of what was left out."""

    volume: np.ndarray
    geometry: Geometry
    skipped: tuple[tuple[str, str], ...]


def require_slices(path: Path, usable: int, skipped: tuple[tuple[str, str], ...] = ()) -> None:
    """Raise StudyError, with the commonest reasons in `skipped`, where fewer than three slices are usable."""
    if usable >= MIN_SLICES:
        return
    if not usable and not skipped:
        raise StudyError(path, "the folder is empty")
    counts = Counter(reason.partition(" (")[0] for _, reason in skipped)
    causes = ", ".join(f"{count} x {reason}" for reason, count in counts.most_common(3)) or "no other files"
    raise StudyError(path, f"{usable} usable slices, at least {MIN_SLICES} are needed; left out: {causes}", skipped)


def require_axial(path: Path, normal: np.ndarray, skipped: tuple[tuple[str, str], ...] = ()) -> None:
    """Raise StudyError where the slices' cranial normal is more than 45 degrees off the patient's long axis."""
    angle_deg = float(np.degrees(np.arccos(np.clip(normal[2], -1, 1))))
    if angle_deg > AXIAL_LIMIT_DEG:
        reason = f"the slices are not axial: {angle_deg:.0f} degrees off, at most {AXIAL_LIMIT_DEG:.0f} are accepted"
        raise StudyError(path, reason, skipped)
