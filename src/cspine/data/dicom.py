"""A study to one CT volume in HU, cranial to caudal: a folder of DICOM files here, a NIfTI file through nifti.py.

Every file of a folder that is left out is listed with the reason; docs/data.md has the table of all rules.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cspine.data.geometry import Geometry, cranial_normal, number_files, order_slices
from cspine.data.header import Header, read_header
from cspine.data.nifti import is_nifti, load_nifti, scan_nifti
from cspine.data.pixels import SliceError, read_hu
from cspine.data.straighten import shift_slice, straightened
from cspine.data.study import MIN_SLICES, Stack, Study, StudyError, require_axial, require_slices

SAME_PLACE_MM = 0.01
# Within one series orientations differ in their last written decimals only; the next series is degrees away.
SAME_ORIENTATION = 1e-3
SAME_SPACING_MM = 5e-4

Skipped = list[tuple[str, str]]


def load_study(path: Path, fast: bool = True) -> Study:
    """Decode a study. Raises StudyError where fewer than three usable slices remain.

    `fast=False` keeps dicomsdl out, which on damaged files can end the process.
    """
    if is_nifti(path):
        return load_nifti(path)
    stack = scan_study(path)
    volume = np.empty(stack.shape, np.int16)
    skipped = list(stack.skipped)
    kept: list[int] = []
    for index, header in enumerate(stack.headers):
        try:
            # In the place of a slice that failed, so that leaving one out costs no second volume.
            read_slice(stack, index, fast, volume[len(kept)])
        except SliceError as error:
            skipped.append((header.file.name, str(error)))
            continue
        kept.append(index)
    require_slices(path, len(kept), tuple(skipped))
    return Study(volume[: len(kept)], stack.geometry.take(kept), tuple(skipped))


def read_slice(stack: Stack, index: int, fast: bool, out: np.ndarray) -> None:
    """Write one slice, straightened where the stack leans, into int16 HU `out`. Raises SliceError."""
    header, shifts_px = stack.headers[index], stack.geometry.shifts_px
    read_hu(header.file, header.encoding, fast, out)
    if shifts_px is not None:
        out[:] = shift_slice(out, shifts_px[index])


def scan_study(path: Path) -> Stack:
    """The usable slices of a study in order, from headers alone. Raises StudyError where there are fewer than three."""
    if is_nifti(path):
        return scan_nifti(path)
    if not path.is_dir():
        raise StudyError(path, "no such folder")
    headers, skipped = _read_headers(path)
    require_slices(path, len(headers), tuple(skipped))
    headers = _one_series(headers, skipped)
    files = [header.file for header in headers]
    numbers = dict(zip(files, number_files(files, [header.instance_number for header in headers]), strict=True))
    headers = _majority(headers, skipped)
    require_axial(path, _normal(headers[0]), tuple(skipped))
    headers = _distinct(headers, skipped)
    require_slices(path, len(headers), tuple(skipped))
    geometry = straightened(_geometry(headers, np.array([numbers[header.file] for header in headers])))
    headers, geometry = _overlapping(headers, geometry, skipped)
    require_slices(path, len(headers), tuple(skipped))
    first = headers[0].encoding
    return Stack(tuple(headers), geometry, tuple(skipped), (len(headers), first.rows, first.columns))


def _read_headers(folder: Path) -> tuple[list[Header], Skipped]:
    headers, skipped = [], []
    for file in sorted(folder.iterdir(), key=lambda path: (len(path.name), path.name)):
        try:
            headers.append(read_header(file))
        except SliceError as error:
            skipped.append((file.name, str(error)))
    return headers, skipped


def _one_series(headers: list[Header], skipped: Skipped) -> list[Header]:
    """The headers of the series with most usable slices; a tie goes to the longer, then to the first by file name."""
    series: dict[str, list[Header]] = {}
    for header in headers:
        series.setdefault(header.series_uid, []).append(header)
    # Anonymisers exist that give every file a series of its own; their numbers tell nothing.
    if len(series) == 1 or max(map(len, series.values())) < MIN_SLICES:
        return headers

    def worth(uid: str) -> tuple[int, float]:
        usable = _distinct(_majority(series[uid], []), [])
        ends = np.subtract(usable[0].position_mm, usable[-1].position_mm) @ _normal(usable[0])
        return len(usable), round(float(ends), 1)

    chosen = max(series, key=worth)
    reason = f"another series than most slices ({{}}, not {chosen or 'none'})"
    skipped += [(h.file.name, reason.format(h.series_uid or "none")) for h in headers if h.series_uid != chosen]
    return series[chosen]


def _majority(headers: list[Header], skipped: Skipped) -> list[Header]:
    """The slices of the most frequent size, then orientation, then pixel spacing; the others are listed."""
    rules: tuple[tuple[str, float, Callable[[Header], Any], str], ...] = (
        ("size", 0, lambda h: (h.encoding.rows, h.encoding.columns), "{:d} x {:d}"),
        ("orientation", SAME_ORIENTATION, lambda h: h.orientation, ", ".join(["{:.3f}"] * 6)),
        ("pixel spacing", SAME_SPACING_MM, lambda h: h.pixel_spacing_mm, "{:.3f} x {:.3f}"),
    )
    for what, tolerance, value_of, form in rules:
        groups: list[tuple[Any, list[Header]]] = []
        for header in headers:
            value = value_of(header)
            known = (g for v, g in groups if v == value or np.allclose(v, value, rtol=0, atol=tolerance))
            if (group := next(known, None)) is None:
                groups.append((value, [header]))
            else:
                group.append(header)
        usual, headers = max(groups, key=lambda group: len(group[1]))
        for value, group in groups:
            if group is not headers:
                told = f"another {what} than most slices ({form.format(*value)}, not {form.format(*usual)})"
                skipped += [(header.file.name, told) for header in group]
    return headers


def _distinct(headers: list[Header], skipped: Skipped) -> list[Header]:
    """The slices cranial to caudal, of those at one place the first."""
    frame = headers[0].orientation
    positions_mm = np.array([header.position_mm for header in headers])
    z_mm = (positions_mm @ _normal(headers[0])).tolist()
    kept: list[int] = []
    for index in order_slices(positions_mm, frame[:3], frame[3:]).tolist():
        if kept and abs(z_mm[index] - z_mm[kept[-1]]) < SAME_PLACE_MM:
            same = headers[kept[-1]].file.name
            skipped.append((headers[index].file.name, f"duplicate position (same place as {same})"))
        else:
            kept.append(index)
    return [headers[index] for index in kept]


def _overlapping(headers: list[Header], geometry: Geometry, skipped: Skipped) -> tuple[list[Header], Geometry]:
    """Leave out slices that straightening would push out of the picture: their position is wrong."""
    if geometry.shifts_px is None:
        return headers, geometry
    size = headers[0].encoding.rows, headers[0].encoding.columns
    beside = (np.abs(geometry.shifts_px) >= size).any(axis=1)
    skipped += [
        (header.file.name, "a position beside the other slices")
        for header, far in zip(headers, beside, strict=True)
        if far
    ]
    kept = np.flatnonzero(~beside).tolist()
    return [headers[index] for index in kept], geometry.take(kept)


def _normal(header: Header) -> np.ndarray:
    return cranial_normal(header.orientation[:3], header.orientation[3:])


def _geometry(headers: list[Header], file_numbers: np.ndarray) -> Geometry:
    first = headers[0]
    row, column = np.reshape(first.orientation, (2, 3))
    return Geometry(
        file_numbers=file_numbers,
        positions_mm=np.array([header.position_mm for header in headers]),
        row_direction=row / np.linalg.norm(row),
        column_direction=column / np.linalg.norm(column),
        pixel_spacing_mm=(first.pixel_spacing_mm[0], first.pixel_spacing_mm[1]),
        thickness_mm=first.thickness_mm,
    )
