"""Where the patient is in a CT: the middle of the body, and the body without table and surrounding air."""

from typing import Any

import cv2
import numpy as np
from scipy import ndimage

BODY_HU = -300
# Thinner things are no body: shells of tables and head rests, clothes, cables.
THIN_MM = 5.0


def body_centre(volume: np.ndarray) -> tuple[float, float]:
    """The (y, x) pixel at the middle of the body in int16 HU (z, y, x): the median over slices of the centroids.

    The table is thin, so an erosion parts it from the body, and the largest component remains. A volume without a body
    is centred on the slice.
    """
    _, rows, columns = volume.shape
    step = max(1, min(rows, columns) // 64)
    body = (volume[:, ::step, ::step] > BODY_HU).astype(np.uint8)
    # Slice by slice in OpenCV, because SciPy's erosion takes as long as reading the study.
    square = np.ones((3, 3), np.uint8)
    core = [cv2.erode(pixels, square, borderType=cv2.BORDER_CONSTANT, borderValue=0) for pixels in body]
    labels, count = ndimage.label(np.stack(core))
    if not count:
        return (rows - 1) / 2, (columns - 1) / 2
    largest = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
    by_row, by_column = largest.sum(axis=2), largest.sum(axis=1)
    counts = by_row.sum(axis=1)
    middles = [
        (by_line @ np.arange(by_line.shape[1]))[counts > 0] / counts[counts > 0] for by_line in (by_row, by_column)
    ]
    y, x = (float(np.median(middle)) * step for middle in middles)
    return y, x


def body_mask(pixels: np.ndarray, threshold_hu: float, pixel_spacing_mm: tuple[float, float]) -> np.ndarray:
    """The body on one slice, int16 HU (y, x), as bool (y, x): airway and lungs are part of it, the table is not.

    What is above the threshold is eroded until thin things are gone; the largest piece, its holes filled, grows back to
    its own border. All False where nothing thicker than 5 mm is above the threshold.
    """
    above = (pixels > threshold_hu).astype(np.uint8)
    radius_y, radius_x = (max(1, round(THIN_MM / 2 / spacing)) for spacing in pixel_spacing_mm)
    # The border of the image is no border of the body; beyond it OpenCV's erosion sees body.
    core = cv2.erode(above, np.ones((2 * radius_y + 1, 2 * radius_x + 1), np.uint8))
    # One pixel more than was eroded, for corners.
    grown: Any = cv2.dilate(_largest(core), np.ones((2 * radius_y + 3, 2 * radius_x + 3), np.uint8))
    return _largest(grown & above).astype(bool)


def _largest(binary: Any) -> np.ndarray:
    """The piece of a uint8 image whose outline encloses most, with its holes filled; zeros if there is none."""
    outlines, _ = cv2.findContours(binary, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    piece = np.zeros(binary.shape, np.uint8)
    if outlines:
        cv2.drawContours(piece, [max(outlines, key=cv2.contourArea)], -1, color=1, thickness=cv2.FILLED)
    return piece
