"""A NIfTI file (.nii, .nii.gz) in HU as a study: turned to (z, y, x), cranial to caudal, through its affine.

Axes are permuted and flipped until x runs closest to patient left, y to posterior, z to caudal; nothing is resampled.
Files have no slice numbers, so slices are numbered 1 to n from cranial to caudal.
"""

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cspine.data.geometry import Geometry
from cspine.data.pixels import AIR_HU, MAX_HU
from cspine.data.study import Stack, Study, StudyError, require_axial, require_slices

SUFFIXES = (".nii", ".nii.gz")
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])
# Cosine between two axes. Rounding of affines stays below; the tilt of a gantry is ten times as much.
NOT_PERPENDICULAR = 1e-3


@dataclass(frozen=True, eq=False)
class Stored:
    """A file's header: the image, its voxels not yet read, and where the volume made of it will lie."""

    image: Any
    geometry: Geometry
    shape: tuple[int, int, int]  # z, y, x
    from_canonical: np.ndarray  # nibabel orientation: (x, y, z) of the volume to the axes of the file


def is_nifti(path: Path) -> bool:
    """Whether the name is that of a NIfTI file."""
    return path.name.endswith(SUFFIXES)


def scan_nifti(file: Path) -> Stack:
    """The study's geometry from the header alone. Raises StudyError with the reason if it cannot be used."""
    stored = _open(file)
    return Stack((), stored.geometry, (), stored.shape)


def load_nifti(file: Path) -> Study:
    """int16 HU (z, y, x); NaN becomes air, fractions are rounded. Raises StudyError with the reason."""
    import nibabel

    stored = _open(file)
    volume = np.empty(stored.shape, np.int16)
    # A view with the axes of the file: planes go where they belong without a second volume in memory.
    as_stored = nibabel.orientations.apply_orientation(volume.transpose(2, 1, 0), stored.from_canonical)
    lowest = np.inf
    try:
        with gzip.open(file) if file.name.endswith(".gz") else file.open("rb") as stream:
            stream.seek(stored.image.dataobj.offset)
            for index in range(as_stored.shape[2]):
                values = _read_plane(stream, stored.image, index)
                lowest = min(lowest, np.fmin.reduce(values, axis=None))
                values = np.nan_to_num(values, nan=AIR_HU)
                as_stored[:, :, index] = np.rint(np.clip(values, AIR_HU, MAX_HU))
            # gzip compares its checksum at the end only.
            while stream.read(1 << 20):
                pass
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise StudyError(file, f"not readable ({' '.join(str(error).split())})") from error
    if not lowest < 0:
        raise StudyError(file, f"not in Hounsfield units: no value is below 0 (air is -1000), the lowest is {lowest:g}")
    return Study(volume, stored.geometry, ())


def _read_plane(stream: Any, image: Any, index: int) -> np.ndarray:
    """The plane (i, j) at `index` of the file's last axis, rescaled."""
    data = image.dataobj
    expected = data.dtype.itemsize * data.shape[0] * data.shape[1]
    content = stream.read(expected)
    if len(content) < expected:
        raise EOFError(f"it ends in plane {index + 1} of {data.shape[2]}")
    values = np.frombuffer(content, data.dtype).reshape(data.shape[:2], order="F")
    if (data.slope, data.inter) == (1, 0):
        return values
    return values * np.float64(data.slope) + np.float64(data.inter)


def open_image(file: Path) -> tuple[Any, np.ndarray]:
    """The nibabel image, its voxels not yet read, and the 4x4 matrix from its indices to LPS mm.

    Raises ValueError or OSError with the reason where the file is no readable NIfTI file.
    """
    import nibabel
    from nibabel.filebasedimages import ImageFileError

    try:
        image: Any = nibabel.load(file)
        to_lps = np.array(image.affine, np.float64)
    except (ImageFileError, EOFError, zlib.error) as error:
        raise ValueError(str(error)) from error
    to_lps[:3] = RAS_TO_LPS @ to_lps[:3]
    if not np.isfinite(to_lps).all() or abs(np.linalg.det(to_lps)) < 1e-9:
        raise ValueError("its affine cannot be inverted")
    return image, to_lps


def _open(file: Path) -> Stored:
    from nibabel import orientations

    if not file.is_file():
        raise StudyError(file, "no such file")
    try:
        image, to_lps = open_image(file)
    except (OSError, ValueError) as error:
        raise StudyError(file, f"not a readable NIfTI file ({' '.join(str(error).split())})") from error
    _refuse(file, image, to_lps)
    stored = orientations.io_orientation(image.affine)
    canonical = orientations.axcodes2ornt(("L", "P", "I"))
    to_canonical = orientations.ornt_transform(stored, canonical)
    shape_x, shape_y, shape_z = (int(image.shape[axis]) for axis in np.argsort(to_canonical[:, 0]))
    affine = to_lps @ orientations.inv_ornt_aff(to_canonical, image.shape)
    geometry = _geometry(affine, shape_z)
    require_slices(file, shape_z)
    require_axial(file, geometry.normal)
    return Stored(image, geometry, (shape_z, shape_y, shape_x), orientations.ornt_transform(canonical, stored))


def _refuse(file: Path, image: Any, to_lps: np.ndarray) -> None:
    """Raise StudyError for files that hold no single CT volume or do not say where it lies."""
    if len(image.shape) != 3:
        raise StudyError(file, f"{len(image.shape)} axes ({' x '.join(map(str, image.shape))}); a CT volume has three")
    if image.dataobj.dtype.kind not in "iuf":
        raise StudyError(file, f"voxels of type {image.dataobj.dtype}, not numbers in HU")
    if not (image.header["sform_code"] or image.header["qform_code"]):
        raise StudyError(file, "the header does not say how the volume lies (sform_code and qform_code are 0)")
    if (unit := image.header.get_xyzt_units()[0]) not in ("mm", "unknown"):
        raise StudyError(file, f"coordinates in {unit}, not mm")
    axes = to_lps[:3, :3] / np.linalg.norm(to_lps[:3, :3], axis=0)
    if np.abs(axes.T @ axes - np.eye(3)).max() > NOT_PERPENDICULAR:
        raise StudyError(file, "the axes of its affine are not perpendicular (sheared); resample it to a straight grid")


def _geometry(affine: np.ndarray, slices: int) -> Geometry:
    """The geometry of a volume with this affine from (x, y, z) to LPS mm."""
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    return Geometry(
        file_numbers=np.arange(1, slices + 1),
        positions_mm=affine[:3, 3] + np.arange(slices)[:, None] * affine[:3, 2],
        row_direction=affine[:3, 0] / spacing_mm[0],
        column_direction=affine[:3, 1] / spacing_mm[1],
        pixel_spacing_mm=(float(spacing_mm[1]), float(spacing_mm[0])),
        thickness_mm=None,
    )
