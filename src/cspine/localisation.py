"""How well fractures are localised: boxes on slices by IoU, lesions in the patient by FROC, distance and level.

Boxes are tables with StudyInstanceUID, file_number, x, y, width, height (found ones with score), one row a box; lesions
are tables under lesions.LESION_COLUMNS.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cspine.lesions import CENTRE, GREATEST, LEAST
from cspine.tables import STUDY

SLICE = [STUDY, "file_number"]
SIDES = ["x", "y", "width", "height"]
# Recall is read at these places, as in the COCO benchmark (Lin et al., ECCV 2014).
RECALLS = np.linspace(0, 1, 101)
# False lesions a study at which FROC curves are read, as in LUNA16 (Setio et al., Med Image Anal 42, 2017).
FALSE_RATES = (0.125, 0.25, 0.5, 1, 2, 4, 8)
# A lesion is found by one whose centre lies that near to its extent: what annotators leave out above and below.
MARGIN_MM = 5.0


def box_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (n, 4) and (m, 4), x, y, width, height: (n, m); 0 for two empty ones."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, :2] + first[:, None, 2:], second[None, :, :2] + second[None, :, 2:])
    both = (high - low).clip(0).prod(axis=2)
    either = first[:, 2:].prod(axis=1)[:, None] + second[:, 2:].prod(axis=1) - both
    return np.divide(both, either, out=np.zeros_like(both, float), where=either > 0)


@dataclass(frozen=True)
class SliceIou:
    """IoU of the surest box on each slice that has a true one."""

    mean: float | None  # over the slices with a found box too; None without any
    matched: int  # such slices
    annotated: int  # slices with a true box


def mean_iou(found: pd.DataFrame, true: pd.DataFrame) -> SliceIou:
    """Of several true boxes on a slice the one that the surest found box meets best counts."""
    surest = found.sort_values("score", ascending=False, kind="stable").drop_duplicates(SLICE)
    boxes = dict(zip(_keys(surest), surest[SIDES].to_numpy(float), strict=True))
    wanted = true.groupby(SLICE)
    values = [
        box_iou(boxes[key][None], rows[SIDES].to_numpy(float)).max()
        for key, rows in ((_key(key), rows) for key, rows in wanted)
        if key in boxes
    ]
    return SliceIou(float(np.mean(values)) if values else None, len(values), wanted.ngroups)


def average_precision(found: pd.DataFrame, true: pd.DataFrame, iou: float) -> float | None:
    """AP at an IoU as COCO counts it, over all slices of both tables; None without a true box.

    Found boxes, the surest first, take the true box of their slice that they meet best and that is not taken yet.
    """
    if not len(true):
        return None
    wanted = {_key(key): rows[SIDES].to_numpy(float) for key, rows in true.groupby(SLICE)}
    taken = {key: np.zeros(len(rows), bool) for key, rows in wanted.items()}
    order = found.sort_values("score", ascending=False, kind="stable")
    hits = np.array(
        [
            _take(box, wanted[key], taken[key], iou) if key in wanted else False
            for key, box in zip(_keys(order), order[SIDES].to_numpy(float), strict=True)
        ],
        bool,
    )
    recall = np.cumsum(hits) / len(true)
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    # The greatest precision at that recall or a greater one.
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    place = np.searchsorted(recall, RECALLS - 1e-12, side="left")
    return float(np.append(envelope, 0.0)[place].mean())


def match_lesions(found: pd.DataFrame, true: pd.DataFrame, margin_mm: float = MARGIN_MM) -> np.ndarray:
    """(found,) the row of the true lesion that each found one hits, -1 for none: the true one nearest to its centre.

    A hit is a centre within the true extent widened by the margin, in the same study.
    """
    hits = np.full(len(found), -1)
    low, high = (true[list(ends)].to_numpy(float) for ends in (LEAST, GREATEST))
    studies, middles = true[STUDY].to_numpy(), true[list(CENTRE)].to_numpy(float)
    for row, (uid, centre) in enumerate(zip(found[STUDY], found[list(CENTRE)].to_numpy(float), strict=True)):
        inside = (studies == uid) & (centre >= low - margin_mm).all(axis=1) & (centre <= high + margin_mm).all(axis=1)
        if inside.any():
            distances = np.linalg.norm(middles - centre, axis=1)
            hits[row] = int(np.where(inside, distances, np.inf).argmin())
    return hits


@dataclass(frozen=True, eq=False)
class Froc:
    """Sensitivity over false lesions a study, as the least score falls; both rise."""

    scores: np.ndarray
    sensitivity: np.ndarray
    false_per_study: np.ndarray

    def at(self, false_per_study: float) -> float:
        """The greatest sensitivity with at most so many false lesions a study."""
        allowed = self.sensitivity[self.false_per_study <= false_per_study]
        return float(allowed.max(initial=0.0))

    @property
    def score(self) -> float:
        """The mean sensitivity at FALSE_RATES."""
        return float(np.mean([self.at(rate) for rate in FALSE_RATES]))


def froc(found: pd.DataFrame, true: pd.DataFrame, studies: int, margin_mm: float = MARGIN_MM) -> Froc:
    """The curve over so many studies, those without any lesion too. Raises ValueError without a true lesion.

    A true lesion is found once, and what else hits it is no false one.
    """
    if not len(true) or studies < 1:
        raise ValueError("sensitivity needs at least one true lesion and one study")
    hits, scores = match_lesions(found, true, margin_mm), found["score"].to_numpy(float)
    cuts = np.unique(scores)[::-1]
    found_share = [len(np.unique(hits[(scores >= cut) & (hits >= 0)])) / len(true) for cut in cuts]
    false_rate = [np.count_nonzero((scores >= cut) & (hits < 0)) / studies for cut in cuts]
    return Froc(cuts, np.array(found_share), np.array(false_rate))


@dataclass(frozen=True)
class LesionScores:
    """Of the true lesions that are found, each by the surest that hits it; None where none is."""

    found: int
    distance_mm: float | None  # median, centre to centre
    right_level: float | None  # share with the true level, of those whose true level is known


def lesion_scores(found: pd.DataFrame, true: pd.DataFrame, margin_mm: float = MARGIN_MM) -> LesionScores:
    hits = match_lesions(found, true, margin_mm)
    surest: dict[int, int] = {}
    for row in np.argsort(-found["score"].to_numpy(float), kind="stable"):
        if hits[row] >= 0:
            surest.setdefault(int(hits[row]), int(row))
    if not surest:
        return LesionScores(0, None, None)
    theirs, ours = true.iloc[list(surest)], found.iloc[list(surest.values())]
    away = ours[list(CENTRE)].to_numpy(float) - theirs[list(CENTRE)].to_numpy(float)
    known = (theirs["level"] != "").to_numpy()
    right = (ours["level"].to_numpy() == theirs["level"].to_numpy())[known]
    distance_mm = float(np.median(np.linalg.norm(away, axis=1)))
    return LesionScores(len(surest), distance_mm, float(right.mean()) if len(right) else None)


def _take(box: np.ndarray, wanted: np.ndarray, taken: np.ndarray, iou: float) -> bool:
    """Whether a box meets a true one of its slice that is not taken; the best of these is then."""
    values = np.where(taken, -1.0, box_iou(box[None], wanted)[0])
    best = int(values.argmax())
    if values[best] < iou:
        return False
    taken[best] = True
    return True


def _key(values: Any) -> tuple[str, int]:
    return str(values[0]), int(values[1])


def _keys(table: pd.DataFrame) -> list[tuple[str, int]]:
    return [_key(key) for key in zip(table[STUDY], table["file_number"], strict=True)]
