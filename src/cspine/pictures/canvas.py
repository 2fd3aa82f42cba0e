"""What all pictures share: the study to draw, the style, the PNG."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cspine.config import DatasetConfig
from cspine.data.layout import SPLITS, image_folder, studies_on_disk, study_path, study_uid
from cspine.data.nifti import is_nifti
from cspine.errors import UserError, nearest
from cspine.paths import atomic, find_dataset

INK, FAINT, MARK, SECOND = "#1f2933", "#616e7c", "#f2a900", "#25c2ff"
NOTHING = "#123c5a"
DPI = 110


def study_folder(config: DatasetConfig, study: str) -> Path:
    """Where a UID of the dataset is, or any folder or NIfTI file. Raises UserError with the nearest UID."""
    if Path(study).is_dir() or (is_nifti(Path(study)) and Path(study).is_file()):
        return Path(study)
    root = find_dataset(config)
    for split in SPLITS:
        if study and (path := study_path(image_folder(root, split), study)).exists():
            return path
    known = [uid for split in SPLITS for uid in studies_on_disk(root, split)]
    raise UserError(f"--study {study}: neither a folder nor a study in {root}; {nearest(study, known[:20])}")


def picture_file(config: DatasetConfig, out: Path | None, what: str, folder: Path) -> Path:
    """Where the picture goes: the file asked for, else one named after the study beside the runs."""
    if out is None:
        return Path(config.paths.oof) / "pictures" / f"{what}-{study_uid(folder)}.png"
    if out.suffix != ".png":
        raise UserError(f"--out {out}: pictures are PNG files; give a name that ends in .png")
    return out


def save(figure: Figure, file: Path) -> None:
    """Write the PNG; equal figures give equal bytes."""
    FigureCanvasAgg(figure)
    with atomic(file) as temporary, mpl.rc_context({"font.size": 9}):
        figure.savefig(temporary, dpi=DPI, metadata={"Software": None})


def blank(axis: Axes) -> None:
    """No ticks, no frame."""
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)


def show(axis: Axes, image: np.ndarray, size_mm: Sequence[float], limits: tuple[float, float], colours: str) -> None:
    """Draw an image (rows, columns) of so many mm in y and x at its true aspect; masked pixels are blue."""
    axis.patch.set_facecolor(NOTHING)
    axis.imshow(image, cmap=colours, vmin=limits[0], vmax=limits[1], extent=(0, size_mm[1], size_mm[0], 0))
    blank(axis)
