"""What is known of a slice besides its pixels: where it lies in its study, and how thick it is."""

import numpy as np

ATTRIBUTES = ("slice_ratio", "z", "thickness")
Z_SCALE_MM = 100.0


def slice_attributes(z_mm: np.ndarray, thickness_mm: float | None) -> np.ndarray:
    """float32 (n, 3), a row a slice of `z_mm` (n,), which falls from cranial to caudal.

    - slice_ratio: 0 at the most cranial slice, 1 at the most caudal, by millimetres and not by file number.
    - z: above the middle of the study, in units of Z_SCALE_MM. A scanner's own z counts from wherever the table was
      zeroed, so it says nothing about a new study; with the ratio this tells the study's length as well.
    - thickness: in mm from the header; the distance between slices where the header has none.
    """
    z_mm = np.asarray(z_mm, float)
    top, bottom = z_mm[0], z_mm[-1]
    if thickness_mm is None:
        thickness_mm = float(np.median(-np.diff(z_mm)))
    ratio = (top - z_mm) / (top - bottom)
    above = (z_mm - (top + bottom) / 2) / Z_SCALE_MM
    return np.stack([ratio, above, np.full(len(z_mm), thickness_mm)], axis=1).astype(np.float32)
