"""What stage 1 says of every slice: a table with the levels' probabilities, in order and raw, and where they are from.

Columns: StudyInstanceUID, file_number, z_mm; C1..C7, what the next stages read: the probabilities in order
(order.py), or the raw ones where `order.evidence_mm` is 0; C1_raw..C7_raw as the model gave them; C1_seen..C7_seen
the best path, each level one run of slices (the longest of the raw ones without an order); fold and source (`oof`: by
the fold that did not train on the study; where it has no mask `full`: by the model of all data, or, as long as that is
not trained, `mean`: of all folds); C1_true..C7_true from the mask, else empty.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from cspine.anatomy import LEVELS
from cspine.data.cache import CachedStudy
from cspine.level_scores import largest_runs
from cspine.order import Order, best_path, fit_order, in_order
from cspine.tables import RAW, SEEN, SLICE_KEYS, STUDY, TRUTH


def fit_masked(studies: Sequence[CachedStudy]) -> Order:
    """The order that the masks of these studies show."""
    return fit_order(
        [study.presence for study in studies if study.presence is not None],
        [study.geometry.z_mm for study in studies if study.presence is not None],
    )


def slice_table(
    studies: Sequence[CachedStudy], probabilities: np.ndarray, fold: int | None, order: Order, evidence_mm: float
) -> pd.DataFrame:
    """The rows of one fold (None: of the model of all data, and then of studies without a mask alone).

    `probabilities` (n, 7), raw, are those of all slices of the studies, one study after another.
    """
    ends = np.cumsum([len(study.volume) for study in studies])
    parts = np.split(probabilities, ends[:-1])
    tables = [_rows(study, raw, fold, order, evidence_mm) for study, raw in zip(studies, parts, strict=True)]
    return pd.concat(tables, ignore_index=True)


def join_slice_tables(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Own-fold rows as they are; where no fold saw a mask the rows of the full model, or the mean over the folds."""
    joined = pd.concat(tables, ignore_index=True)
    by_full = set(joined.loc[joined["source"] == "full", STUDY])
    joined = joined[(joined["source"] != "mean") | ~joined[STUDY].isin(by_full)]
    keys = [*SLICE_KEYS, "fold", "source", *TRUTH]
    groups = joined.groupby(keys, sort=False, dropna=False)[[*LEVELS, *RAW, *SEEN]]
    return groups.mean().astype(np.float32).reset_index()


def slice_accuracy(table: pd.DataFrame) -> dict[str, float]:
    """Mean over slices and levels of "presence right" at 0.5 (the measure that the method was reported with)."""
    known = table[table["source"] == "oof"]
    if known.empty:
        return {}
    truth = known[list(TRUTH)].to_numpy() > 0.5
    return {
        "accuracy": float(((known[list(LEVELS)].to_numpy() > 0.5) == truth).mean()),
        "raw_accuracy": float(((known[list(RAW)].to_numpy() > 0.5) == truth).mean()),
    }


def mean_in_order(
    probabilities: np.ndarray, z_mm: np.ndarray, facts: Sequence[dict[str, Any]], evidence_mm: float
) -> np.ndarray:
    """The mean over the folds of their probabilities (folds, n, 7), each in the order its training masks showed."""
    if not evidence_mm:
        return np.mean(probabilities, axis=0)
    orders = [Order.from_json(fact["order"]) for fact in facts]
    return np.mean(
        [in_order(order, raw, z_mm, evidence_mm) for order, raw in zip(orders, probabilities, strict=True)], axis=0
    )


def _rows(study: CachedStudy, raw: np.ndarray, fold: int | None, order: Order, evidence_mm: float) -> pd.DataFrame:
    masked, z_mm = study.presence is not None, study.geometry.z_mm
    rows = pd.DataFrame({"file_number": study.geometry.file_numbers, "z_mm": z_mm})
    rows.insert(0, STUDY, study.uid)
    rows["fold"] = fold if masked else -1
    rows["source"] = "oof" if masked else "full" if fold is None else "mean"
    rows[list(TRUTH)] = study.presence.astype(float) if study.presence is not None else np.nan
    rows[list(RAW)] = raw
    rows[list(LEVELS)] = in_order(order, raw, z_mm, evidence_mm) if evidence_mm else raw
    path = best_path(order, raw, z_mm, evidence_mm) if evidence_mm else largest_runs(raw)
    rows[list(SEEN)] = path.astype(float)
    return rows
