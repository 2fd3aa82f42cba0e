"""Studies beside each other at one scale: axial slices, a sagittal and a coronal reformat through the spine."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure

from cspine.data.body import BODY_HU
from cspine.data.dicom import Study
from cspine.pictures.canvas import FAINT, INK, blank
from cspine.windows import WINDOWS

PIXEL_MM = 0.4
PLANE_MM = (180.0, 170.0)  # height and width of every plane shown
BONE_HU = 250
AROUND_MM = 30.0  # the spine lies that near to the middle of the body
LUMP_MM = 9.0
BODY_BEFORE_MM = 7.0  # the bodies before the middle of a vertebra
INCHES_PER_MM = 0.0145


def draw_planes(studies: Sequence[tuple[str, Study]], at: Sequence[float]) -> Figure:
    """A row a study (its name and itself), in the bone window; `at` are the places of the axial slices in each, 0
    cranial to 1 caudal."""
    columns = len(at)
    height_mm, width_mm = PLANE_MM
    across, down = (columns + 2) * width_mm * INCHES_PER_MM, len(studies) * (height_mm + 16) * INCHES_PER_MM
    figure = Figure((across, down))
    axes = figure.subplots(len(studies), columns + 2, squeeze=False)
    figure.subplots_adjust(0.002, 0.005, 0.998, 1 - 16 / ((height_mm + 16) * len(studies)), 0.01, 16 / height_mm)
    for row, (name, study) in enumerate(studies):
        indices = [round(place * (len(study.volume) - 1)) for place in at]
        titles = [*(f"slice {index + 1} of {len(study.volume)}" for index in indices), "sagittal", "coronal"]
        for axis, title, image in zip(axes[row], titles, planes(study, indices), strict=True):
            axis.imshow(image, cmap="gray", vmin=WINDOWS["wide"][0], vmax=WINDOWS["wide"][1], aspect="equal")
            axis.set_title(title, loc="left", fontsize=7, color=FAINT, pad=2)
            blank(axis)
        axes[row, 0].set_title(f"{name}: {titles[0]}", loc="left", fontsize=7, color=INK, pad=2)
    return figure


def planes(study: Study, indices: Sequence[int]) -> list[np.ndarray]:
    """The axial slices, the sagittal and the coronal plane: HU, PLANE_MM at PIXEL_MM, air where the scan ends."""
    y, x = spine_place(study)
    step_y, step_x = study.geometry.pixel_spacing_mm
    step_z = study.geometry.spacing_mm
    # The slice is shown with the spine behind its middle; the reformats end with the last slice.
    front = y - 20.0 / step_y
    found = [_plane(study.volume[index], (step_y, step_x), (front, x)) for index in indices]
    centre_z = len(study.volume) - PLANE_MM[0] / 2 / step_z
    found.append(_plane(study.volume[:, :, round(x)], (step_z, step_y), (centre_z, front)))
    found.append(_plane(study.volume[:, round(y)], (step_z, step_x), (centre_z, x)))
    return found


def spine_place(study: Study) -> tuple[float, float]:
    """y and x, in pixels, of the vertebral bodies: before the largest lump of bone in the caudal half."""
    step_y, step_x = study.geometry.pixel_spacing_mm
    lower = study.volume[len(study.volume) // 2 :: max(1, len(study.volume) // 60)]
    body = np.nonzero((lower > BODY_HU).any((0, 1)))[0]
    middle = body.mean() if len(body) else lower.shape[2] / 2
    aside = abs(np.arange(lower.shape[2]) - middle) * step_x > AROUND_MM
    found = []
    for pixels in lower:
        bone = (pixels > BONE_HU).astype(np.float32)
        lump = cv2.GaussianBlur(bone, (0, 0), LUMP_MM / step_x, sigmaY=LUMP_MM / step_y)
        lump[:, aside] = 0
        found.append(np.unravel_index(int(lump.argmax()), lump.shape))
    y, x = np.median(found, 0)
    return max(float(y) - BODY_BEFORE_MM / step_y, 0.0), float(x)


def _plane(image: np.ndarray, step_mm: tuple[float, float], centre: tuple[float, float]) -> np.ndarray:
    """Cut PLANE_MM about `centre` (row, column) out of an image and sample it at PIXEL_MM."""
    rows, columns = (round(side / PIXEL_MM) for side in PLANE_MM)
    scale = [PIXEL_MM / step for step in step_mm]
    shift = [c - 0.5 * (n - 1) * s for c, n, s in zip(centre, (rows, columns), scale, strict=True)]
    matrix = np.array([[scale[1], 0, shift[1]], [0, scale[0], shift[0]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    air = (-1000.0, 0.0, 0.0, 0.0)
    return cv2.warpAffine(image.astype(np.float32), matrix, (columns, rows), flags=flags, borderValue=air)


def name_of(folder: Path) -> str:
    """What to call a study in a picture: the last part of its path, UIDs shortened."""
    return folder.name if len(folder.name) < 32 else f"...{folder.name[-12:]}"
