"""A study as a report shows it, made without any model: four blocks of bone, one of them fractured."""

from dataclasses import replace

import numpy as np
import pandas as pd

from cspine.anatomy import LEVELS
from cspine.data.bones import solid_bones
from cspine.data.geometry import Geometry
from cspine.lesions import find_lesions
from cspine.report.frame import report_frame
from cspine.report.levels import read_levels
from cspine.report.reader import Reading
from cspine.report.surfaces import level_surfaces

NAME = "<script>alert(1)</script> & Sons"
SLICES, ROWS, COLUMNS = 61, 60, 50
THRESHOLDS = dict.fromkeys(LEVELS, 0.4)
TOLD = dict(zip(LEVELS, (0.05, 0.9, 0.2, 0.1, 0.1, 0.1, 0.3), strict=True))


def geometry() -> Geometry:
    """Slices 1.5 mm apart of pixels of 1 mm, the middle of the patient at 20, 30 mm."""
    positions = np.array([[-5.0, 0.0, 200 - 1.5 * z] for z in range(SLICES)])
    return Geometry(np.arange(1, SLICES + 1), positions, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), (1.0, 1.0), 1.5)


def volume_hu() -> np.ndarray:
    """Air, a body, and of C1 to C4 a block each of 9 slices, wide in x."""
    volume = np.full((SLICES, ROWS, COLUMNS), -1000, np.int16)
    volume[:, 5:-5, 5:-5] = 40
    for level in range(4):
        volume[5 + 12 * level : 14 + 12 * level, 20:40, 12:38] = 500
    return volume


def reading(heads: bool = True, lesions: bool = True, name: str = NAME) -> Reading:
    place = geometry()
    frame = report_frame(place, (ROWS, COLUMNS), (29.5, 24.5), 60.0)
    frame = replace(frame, voxel_mm=1.0)
    sampled = frame.sample(volume_hu())
    labels = np.zeros(frame.shape, np.uint8)
    depth_mm = np.arange(frame.shape[0]) * frame.voxel_mm
    for level in range(4):
        inside = (depth_mm >= 1.5 * (5 + 12 * level)) & (depth_mm < 1.5 * (14 + 12 * level))
        labels[np.ix_(inside, np.arange(18, 42), np.arange(10, 40))] = level + 1
    heat = np.zeros(frame.shape, np.float32)
    heat[labels == 2] = 0.7
    boxes = pd.DataFrame(
        [(20 + n, 15, 22, 8, 10, 0.8, "") for n in range(4)] if lesions else [],
        columns=["file_number", "x", "y", "width", "height", "score", "level"],
    )
    found = find_lesions(name, boxes, place, np.full(len(boxes), 1))
    return Reading(
        name,
        frame,
        sampled,
        labels,
        heat if heads else None,
        read_levels(labels, frame, TOLD if heads else None, THRESHOLDS if heads else {}),
        (0.92, 0.5) if heads else None,
        found,
        tuple(level_surfaces(solid_bones(sampled, labels, frame.voxel_mm), frame.voxel_mm)),
        ("A note with <b>markup</b>.",),
        {},
    )
