"""A dataset in numbers: studies, files, sizes, encodings, spacings, labels, masks and boxes of a split."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd

from cspine.anatomy import LEVELS, TARGETS
from cspine.data.check_study import StudyCheck, StudyFacts
from cspine.data.check_tables import Tables, count_gapped
from cspine.data.fingerprint import percentiles
from cspine.tables import STUDY


def summarise(checks: Sequence[StudyCheck], tables: Tables) -> dict[str, Any]:
    """One split's studies as plain JSON; studies without a row in the table count too."""
    usable = {check.uid: check.facts for check in checks if check.facts}
    facts = list(usable.values())
    summary: dict[str, Any] = {
        "studies": len(checks),
        "unusable": len(checks) - len(facts),
        "files": sum(fact.files for fact in facts),
        "slices": sum(len(fact.geometry.z_mm) for fact in facts),
        "sizes": _count(f"{fact.rows} x {fact.columns}" for fact in facts),
        "numbering": _count(fact.numbering for fact in facts),
        "transfer_syntaxes": dict(sum((Counter(fact.syntaxes) for fact in facts), Counter())),
        "slices_per_study": percentiles([len(fact.geometry.z_mm) for fact in facts]),
        "extent_mm": percentiles([fact.extent_mm for fact in facts]),
        "spacing_mm": percentiles([fact.geometry.spacing_mm for fact in facts]),
        "pixel_spacing_mm": percentiles([fact.geometry.pixel_spacing_mm[0] for fact in facts]),
        "thickness_mm": percentiles([fact.geometry.thickness_mm for fact in facts if fact.geometry.thickness_mm]),
    }
    if tables.labels is not None:
        summary["labels"] = _summarise_labels(tables.labels)
    if tables.boxes is not None:
        summary["boxes"] = _summarise_boxes(tables.boxes, usable)
    if masked := [fact for fact in facts if fact.has_mask]:
        slices = sum(len(fact.geometry.z_mm) for fact in masked)
        summary["masks"] = {
            "studies": len(masked),
            "slices": slices,
            "numbering": _count(fact.numbering for fact in masked),
        }
    return summary


def _count(values) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _summarise_labels(labels: pd.DataFrame) -> dict[str, Any]:
    fractured = labels[list(LEVELS)].sum(axis=1)
    return {
        "studies": len(labels),
        "positives": {target: int(labels[target].sum()) for target in TARGETS},
        "fractured_levels": {str(count): int((fractured == count).sum()) for count in sorted(set(fractured))},
    }


def _summarise_boxes(boxes: pd.DataFrame, usable: dict[str, StudyFacts]) -> dict[str, int]:
    return {
        "boxes": len(boxes),
        "studies": int(boxes[STUDY].nunique()),
        "studies_with_gaps": count_gapped(boxes, usable),
        "studies_with_mask": sum(1 for uid in set(boxes[STUDY]) if uid in usable and usable[uid].has_mask),
    }
