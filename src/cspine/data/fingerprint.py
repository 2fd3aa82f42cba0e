"""On which data something stands: counts, percentiles and one hash, small enough to lie beside every run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cspine.anatomy import TARGETS
from cspine.config import DatasetConfig, as_overrides, digest, to_dict
from cspine.data.cache import bad_studies, open_study
from cspine.data.geometry import Geometry
from cspine.data.layout import box_file, label_file, masks_on_disk
from cspine.paths import cache_folder, find_dataset, need, read_json, write_json
from cspine.tables import BOX_COLUMNS, STUDY, read_boxes, read_labels

COMMAND = "python src/prepare.py"


def fingerprint(root: Path, labels: pd.DataFrame, geometries: dict[str, Geometry]) -> dict[str, Any]:
    """The labelled training data, of which the studies in `geometries` are usable.

    The hash covers labels, boxes, masks by name and size, and where every slice lies. It depends neither on the place
    of the data nor on the preprocessing, and not on the order of rows.
    """
    masks = {uid: file.stat().st_size for uid, file in sorted(masks_on_disk(root).items())}
    boxes = read_boxes(box_file(root)) if box_file(root).is_file() else pd.DataFrame(columns=[STUDY, *BOX_COLUMNS])
    usable = {uid: geometries[uid] for uid in sorted(labels[STUDY]) if uid in geometries}
    places = {uid: digest(geometry.to_json()) for uid, geometry in usable.items()}
    parts = [_rows(labels, (STUDY, *TARGETS)), _rows(boxes, (STUDY, *BOX_COLUMNS)), masks, places]
    return {
        "hash": digest(parts),
        "dataset": root.resolve().name,
        "studies": len(labels),
        "usable": len(usable),
        "slices": sum(len(geometry.z_mm) for geometry in usable.values()),
        "positives": {target: int(labels[target].sum()) for target in TARGETS},
        "masks": len(masks),
        "boxes": len(boxes),
        "spacing_mm": percentiles([geometry.spacing_mm for geometry in usable.values()]),
        "pixel_spacing_mm": percentiles([geometry.pixel_spacing_mm[0] for geometry in usable.values()]),
    }


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Least, 5 %, median, 95 % and greatest; empty where there are no values."""
    if not len(values):
        return {}
    found = np.percentile(values, [0, 5, 50, 95, 100])
    return dict(zip(("min", "p5", "median", "p95", "max"), (round(float(value), 4) for value in found), strict=True))


def _rows(table: pd.DataFrame, columns: tuple[str, ...]) -> list[list[Any]]:
    return sorted([str(uid), *map(float, values)] for uid, *values in table[list(columns)].itertuples(index=False))


def fingerprint_file(config: DatasetConfig) -> Path:
    folder = cache_folder(config)
    return folder.with_name(f"{folder.name}.fingerprint.json")


def write_fingerprint(config: DatasetConfig) -> dict[str, Any]:
    """Take the fingerprint of what the cache holds of the training data, and write it beside it."""
    root = find_dataset(config)
    labels, bad = read_labels(label_file(root)), bad_studies(config)
    geometries = {uid: open_study(config, uid).geometry for uid in labels[STUDY] if uid not in bad}
    found = fingerprint(root, labels, geometries)
    write_json(fingerprint_file(config), found)
    return found


def read_fingerprint(config: DatasetConfig) -> dict[str, Any]:
    """What `prepare` wrote. Raises UserError with the command where it has not run to its end."""
    command = f"{COMMAND} {as_overrides('preprocess', to_dict(config.preprocess))}"
    return read_json(need(fingerprint_file(config), command))
