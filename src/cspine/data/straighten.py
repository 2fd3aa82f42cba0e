"""Stacks that lean (gantry tilt): each slice is shifted in its plane until all lie over each other along the normal.

The table moves along the patient while the slices are tilted, so neighbours are displaced within their plane. Vendors
disagree on the sign of the tilt tag; positions and orientations (ImagePositionPatient, ImageOrientationPatient) do not.
"""

from dataclasses import replace

import cv2
import numpy as np

from cspine.data.geometry import Geometry
from cspine.data.pixels import AIR_HU

# A drift below this over the whole stack is left alone: resampling would cost sharpness and gain nothing.
DRIFT_LIMIT_PX = 0.5


def drift_px(geometry: Geometry) -> np.ndarray:
    """(n, 2) displacement y, x of each slice in its plane from the slice nearest to the median, which stays."""
    axes = np.stack([geometry.column_direction, geometry.row_direction])
    places = geometry.positions_mm @ axes.T / np.array(geometry.pixel_spacing_mm)
    # The median, because one wrong position must not move all other slices.
    reference = np.argmin(np.linalg.norm(places - np.median(places, axis=0), axis=1))
    return places - places[reference]


def straightened(geometry: Geometry) -> Geometry:
    """The geometry after every slice is shifted by its drift, which `shifts_px` records; unchanged if it is small."""
    shifts_px = drift_px(geometry)
    if np.ptp(shifts_px, axis=0).max() <= DRIFT_LIMIT_PX:
        return geometry
    step_y, step_x = geometry.pixel_spacing_mm
    across = shifts_px[:, :1] * step_y * geometry.column_direction + shifts_px[:, 1:] * step_x * geometry.row_direction
    return replace(geometry, positions_mm=geometry.positions_mm - across, shifts_px=shifts_px)


def shift_slice(pixels: np.ndarray, shift_px: np.ndarray) -> np.ndarray:
    """int16 HU (y, x) moved down and right by a fraction of pixels, bilinear, air where nothing was."""
    matrix = np.array([[1.0, 0.0, shift_px[1]], [0.0, 1.0, shift_px[0]]])
    # In float32, because OpenCV rounds the shift of integer images to 1/32 pixel.
    moved = cv2.warpAffine(
        pixels.astype(np.float32),
        matrix,
        pixels.shape[::-1],
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=AIR_HU,
    )
    return np.rint(moved).astype(np.int16)
