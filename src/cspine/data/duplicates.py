"""Studies that are there twice: the same pixels under two UIDs, or one UID in both splits."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import pandas as pd

from cspine.anatomy import TARGETS
from cspine.data.check_study import StudyCheck
from cspine.data.findings import Finding
from cspine.tables import STUDY

IN_TRAINING = "remove all but one, with its row: dealt into two folds they are trained on and scored on"
IN_BOTH = "remove it from one split: a model that has seen it scores too well"


def find_duplicates(checks: Sequence[StudyCheck], labels: pd.DataFrame | None) -> Iterator[Finding]:
    """Groups of studies whose sampled slices hold the same HU, and UIDs that several splits share."""
    by_pixels, by_uid = defaultdict(list), defaultdict(list)
    for check in checks:
        by_uid[check.uid].append(check)
        if check.facts and check.facts.pixels:
            by_pixels[check.facts.pixels].append(check)
    for group in by_uid.values():
        if len(group) > 1:
            yield Finding("warning", "study in both splits", str(group[1].folder), "its UID is in train too", IN_BOTH)
    for group in by_pixels.values():
        if len({check.uid for check in group}) > 1:
            first, *others = group
            places = ", ".join(f"{check.uid} ({check.split})" for check in others)
            what = f"the same pixels as {places}{_contradiction(group, labels)}"
            remedy = IN_TRAINING if len({check.split for check in group}) == 1 else IN_BOTH
            yield Finding("warning", "duplicated study", str(first.folder), what, remedy)


def _contradiction(group: Sequence[StudyCheck], labels: pd.DataFrame | None) -> str:
    if labels is None:
        return ""
    trained_on = [check.uid for check in group if check.split == "train"]
    rows = labels.loc[labels[STUDY].isin(trained_on), list(TARGETS)]
    return ", and their labels differ" if len(rows.drop_duplicates()) > 1 else ""
