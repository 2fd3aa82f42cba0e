"""How well stage 1 finds the levels: errors of their top, bottom and centre in mm, and the share that is found."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from cspine.anatomy import LEVELS
from cspine.data.levels import level_extents
from cspine.tables import STUDY, TRUTH

FOUND_MM = (5.0, 20.0)
ERRORS = ("top_mm", "bottom_mm", "centre_mm")


def largest_runs(probabilities: np.ndarray) -> np.ndarray:
    """Presence, bool (n, 7), from probabilities (n, 7) of one study: each level's longest run of slices above 0.5."""
    kept = np.zeros(probabilities.shape, bool)
    for level, above in enumerate((probabilities > 0.5).T):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], above, [False]])))
        if len(edges):
            starts, stops = edges[::2], edges[1::2]
            longest = int((stops - starts).argmax())
            kept[starts[longest] : stops[longest], level] = True
    return kept


def level_errors(table: pd.DataFrame, columns: Sequence[str] = LEVELS) -> pd.DataFrame:
    """A row a level that a mask shows whole: signed errors (found minus true) in mm, NaN where it is not found.

    `table` is a slice table with truth, `columns` hold what was found of C1 to C7. Levels that the scan cuts off have
    no true extent and are left out.
    """
    rows = []
    known = table[table[TRUTH[0]].notna()]
    for uid, study in known.groupby(STUDY, sort=False):
        slices = study.sort_values("z_mm", ascending=False, kind="stable")
        z_mm = slices["z_mm"].to_numpy()
        true = level_extents(slices[list(TRUTH)].to_numpy(float) > 0.5, z_mm)
        found = level_extents(largest_runs(slices[list(columns)].to_numpy(float)), z_mm)
        top, bottom = found.z_top_mm - true.z_top_mm, found.z_bottom_mm - true.z_bottom_mm
        for number in np.flatnonzero(~np.isnan(true.z_top_mm) & ~true.cut):
            errors = top[number], bottom[number], (top[number] + bottom[number]) / 2
            rows.append({STUDY: uid, "level": LEVELS[number], **dict(zip(ERRORS, errors, strict=True))})
    return pd.DataFrame(rows, columns=[STUDY, "level", *ERRORS])


def level_scores(errors: pd.DataFrame) -> dict[str, Any]:
    """Medians of the absolute errors in mm (of the levels found), and the shares found within 5 and 20 mm."""
    if errors.empty:
        return {}
    away = errors[list(ERRORS)].abs()
    within = {f"within_{distance:g}_mm": float((away["centre_mm"] <= distance).mean()) for distance in FOUND_MM}
    return {"levels": len(errors), **{name: float(away[name].median()) for name in ERRORS}, **within}
