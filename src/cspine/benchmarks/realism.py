"""Is the phantom a CT? HU of each tissue, and the noise of flat muscle, of any studies side by side.

The tissues are found by plain rules on slices blurred by 1 mm, so that noise does not choose them; the statistics are
those of the voxels as they are. Bone is that of the vertebrae in the caudal half in voxels of 1 mm, so that neither
noise nor sharpness matters: trabecular deep under its surface, cortical the densest about each place of the surface.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy import ndimage

from cspine.benchmarks.noise_power import NoisePower, noise_power
from cspine.data.body import body_mask
from cspine.data.dicom import load_study
from cspine.data.study import Study
from cspine.pictures.planes import name_of, spine_place

TISSUES = ("air", "fat", "muscle", "trabecular bone", "cortical bone")
STATISTICS = ("mean", "sd", "5 %", "50 %", "95 %")
BODY_HU, AIR_HU, BONE_HU = -300, -850, 200
FAT_HU, MUSCLE_HU = (-150, -50), (20, 90)
BLUR_MM, ERODED_MM = 1.0, 1.5
VOXEL_MM, SMALLEST_MM3 = 1.0, 500
ASIDE_MM, BEFORE_MM, BEHIND_MM = 30.0, 16.0, 50.0  # the spine about the middle of a vertebral body
CLOSED_MM = 1.5  # marrow below BONE_HU belongs to the bone, the canal does not
CORE_MM = 3.0  # depth under the surface of bone
SLICES = 60
HISTOGRAM_HU = np.arange(-200, 1601, 20)
FREQUENCIES = np.arange(0.1, 1.25, 0.1)  # cycles/mm
EXPLAINED = (
    "",
    "The distance of two histograms is the share of voxels from -200 to 1,600 HU that lie in another bin of 20 HU.",
    "Noise: quiet squares of muscle less their plane. Power: per area of the frequency plane, the greatest 1; - beyond",
    "what the pixels resolve.",
)


@dataclass(frozen=True)
class Look:
    """What one study looks like: HU of each tissue's voxels, shares of the histograms' bins, noise."""

    name: str
    tissues: dict[str, np.ndarray]
    histograms: dict[str, np.ndarray]
    noise: NoisePower


def realism_table(folders: Sequence[Path]) -> str:
    """The studies side by side; the histogram's distance is to the first of them."""
    looks = [look_at(name_of(folder), load_study(folder)) for folder in folders]
    heads = "".join(f"{look.name[-14:]:>16}" for look in looks)
    lines = [f"{'HU':34}{heads}"]
    for tissue in TISSUES:
        columns = [_statistics(look.tissues[tissue]) for look in looks]
        for row, what in enumerate(STATISTICS):
            cells = "".join(f"{column[row]:>16.0f}" for column in columns)
            lines.append(f"{tissue if row == 0 else '':22}{what:12}{cells}")
    for what in looks[0].histograms:
        apart = [distance(look.histograms[what], looks[0].histograms[what]) for look in looks]
        lines.append(f"{f'distance of histograms, {what}':34}" + "".join(f"{value:>16.2f}" for value in apart))
    return "\n".join([*lines, "", *_noise_lines(looks, heads), *EXPLAINED])


def _noise_lines(looks: Sequence[Look], heads: str) -> list[str]:
    rows = (
        ("deviation, HU", [f"{look.noise.sd_hu:.1f}" for look in looks]),
        ("squares", [str(look.noise.squares) for look in looks]),
        ("peak, cycles/mm", [f"{look.noise.peak:.2f}" for look in looks]),
        ("mean, cycles/mm", [f"{look.noise.mean:.2f}" for look in looks]),
    )
    lines = [f"{'noise in muscle':34}{heads}"]
    lines += [f"  {what:32}" + "".join(f"{cell:>16}" for cell in cells) for what, cells in rows]
    for frequency in FREQUENCIES:
        values = [look.noise.at(float(frequency)) for look in looks]
        cells = "".join(f"{'-' if value is None else format(value, '.2f'):>16}" for value in values)
        lines.append(f"  power at {frequency:.1f} cycles/mm        {cells}")
    return lines


def look_at(name: str, study: Study) -> Look:
    """Find the tissues and the noise of one study."""
    step_mm = study.geometry.pixel_spacing_mm
    found: dict[str, list[np.ndarray]] = {}
    body: list[np.ndarray] = []
    flat: list[tuple[np.ndarray, np.ndarray]] = []
    for pixels in study.volume[:: max(1, len(study.volume) // SLICES)]:
        smooth = cv2.GaussianBlur(pixels.astype(np.float32), (0, 0), BLUR_MM / step_mm[1], sigmaY=BLUR_MM / step_mm[0])
        inside = body_mask(pixels, BODY_HU, step_mm)
        masks = soft_masks(smooth, inside, step_mm)
        for tissue, mask in masks.items():
            found.setdefault(tissue, []).append(pixels[mask])
        body.append(smooth[inside])
        flat.append((pixels, masks["muscle"]))
    cortical, trabecular = bone_voxels(study)
    tissues = {tissue: np.concatenate(parts) for tissue, parts in found.items()}
    tissues |= {"trabecular bone": trabecular, "cortical bone": cortical}
    histograms = {"body": _shares(np.concatenate(body)), "bone": _shares(np.concatenate([cortical, trabecular]))}
    return Look(name, tissues, histograms, noise_power(flat, step_mm))


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """How far apart two histograms are: 0 the same, 1 without a bin in common."""
    return float(0.5 * np.abs(one - other).sum())


def soft_masks(smooth: np.ndarray, body: np.ndarray, step_mm: tuple[float, float]) -> dict[str, np.ndarray]:
    """Air about the patient, fat and muscle of one blurred slice (y, x) in HU, each eroded; bool (y, x)."""
    masks = {
        "air": ~body & (smooth < AIR_HU),
        "fat": body & (smooth > FAT_HU[0]) & (smooth < FAT_HU[1]),
        "muscle": body & (smooth > MUSCLE_HU[0]) & (smooth < MUSCLE_HU[1]),
    }
    kernel = np.ones([2 * round(ERODED_MM / step) + 1 for step in step_mm], np.uint8)
    return {name: cv2.erode(mask.astype(np.uint8), kernel).astype(bool) for name, mask in masks.items()}


def bone_voxels(study: Study) -> tuple[np.ndarray, np.ndarray]:
    """HU of the cortical and of the trabecular bone of the vertebrae in the caudal half."""
    y, x = spine_place(study)
    step_y, step_x = study.geometry.pixel_spacing_mm
    top, bottom = max(round(y - BEFORE_MM / step_y), 0), round(y + BEHIND_MM / step_y)
    left, right = max(round(x - ASIDE_MM / step_x), 0), round(x + ASIDE_MM / step_x)
    part = study.volume[len(study.volume) // 2 :, top:bottom, left:right]
    part = _averaged(part, (study.geometry.spacing_mm, step_y, step_x))
    pieces, count = ndimage.label(part > BONE_HU)
    large = np.bincount(pieces.ravel(), minlength=count + 1)[1:] * VOXEL_MM**3 > SMALLEST_MM3
    bone = np.isin(pieces, 1 + np.flatnonzero(large))
    if not bone.any():
        return part[bone], part[bone]
    # Closing by distance: what is near to bone, less what is near to the outside of that.
    near = ndimage.distance_transform_edt(~bone, VOXEL_MM) <= CLOSED_MM
    depth_mm = ndimage.distance_transform_edt(ndimage.distance_transform_edt(near, VOXEL_MM) > CLOSED_MM, VOXEL_MM)
    surface = (depth_mm > 0) & (depth_mm <= VOXEL_MM)
    return ndimage.maximum_filter(part, 3)[surface], part[depth_mm > CORE_MM]


def _averaged(part: np.ndarray, step_mm: tuple[float, float, float]) -> np.ndarray:
    """HU (z, y, x) averaged to voxels of VOXEL_MM, float32."""
    slices, rows, columns = (max(1, round(n * step / VOXEL_MM)) for n, step in zip(part.shape, step_mm, strict=True))
    small = [cv2.resize(p.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA) for p in part]
    flat = np.stack(small).reshape(len(part), -1)
    return cv2.resize(flat, (flat.shape[1], slices), interpolation=cv2.INTER_AREA).reshape(slices, rows, columns)


def _shares(hu: np.ndarray) -> np.ndarray:
    counts = np.histogram(hu, HISTOGRAM_HU)[0]
    return counts / max(int(counts.sum()), 1)


def _statistics(hu: np.ndarray) -> np.ndarray:
    if not len(hu):
        return np.full(len(STATISTICS), np.nan)
    return np.array([hu.mean(dtype=float), hu.std(dtype=float), *np.percentile(hu, [5, 50, 95])])
