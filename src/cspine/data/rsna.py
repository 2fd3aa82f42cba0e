"""What is known of the RSNA 2022 training data: its counts, and the studies that have made trouble."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cspine.data.check_study import AGAIN, StudyCheck
from cspine.data.findings import Finding
from cspine.paths import RSNA_NAME

UID_ROOT = "1.2.826.0.1.3680043."
USED = "nothing: it is used like any other, with the labels it has"
# Last part of the UID -> what is known, what the project does.
KNOWN_STUDIES = {
    "20574": ("98 slices, not the whole cervical spine", USED),
    "8362": ("83 slices, not the whole cervical spine", USED),
    "8693": ("69 slices, not the whole cervical spine", USED),
    "29952": ("others have listed it as a problem, without saying why", USED),
    "20756": ("1,082 slices, three times the usual", "nothing: it is used, and takes three times the time"),
}
# The summary of the whole training set, as far as it is known for certain.
COUNTS: dict[str, Any] = {
    "studies": 2019,
    "files": 711_601,
    "sizes": {"512 x 512": 2016, "768 x 768": 2, "512 x 519": 1},
    "numbering": {"descending": 1822, "ascending": 197},
    "labels": {
        "studies": 2019,
        "positives": {
            "patient_overall": 961, "C1": 146, "C2": 285, "C3": 73, "C4": 108, "C5": 162, "C6": 277, "C7": 393,
        },
        "fractured_levels": {"0": 1058, "1": 623, "2": 239, "3": 64, "4": 26, "5": 7, "6": 2},
    },
    "boxes": {"boxes": 7217, "studies": 235, "studies_with_gaps": 108, "studies_with_mask": 40},
    "masks": {"studies": 87, "slices": 29_832, "numbering": {"descending": 81, "ascending": 6}},
}  # fmt: skip


def is_rsna(root: Path, studies: set[str] | None) -> bool:
    """By the folder's name or, where it was renamed, by studies that no phantom has together."""
    return root.resolve().name == RSNA_NAME or {UID_ROOT + number for number in KNOWN_STUDIES} <= (studies or set())


def known_studies(checks: Sequence[StudyCheck]) -> Iterator[Finding]:
    """A note for each study of the short list."""
    for check in checks:
        if known := KNOWN_STUDIES.get(check.uid.removeprefix(UID_ROOT)):
            yield Finding("note", "known problem study", str(check.folder), *known)


def compare_counts(root: Path, summary: dict[str, Any]) -> Iterator[Finding]:
    """A warning for each number of the training set's summary that is not the competition's."""
    for key, known, found in _differences(COUNTS, summary):
        what = f"{key}: {found:,} here, {known:,} in the competition's data"
        remedy = f"if the data should be whole, {AGAIN} or take the tables as they were"
        yield Finding("warning", "not the competition's counts", str(root), what, remedy)


def _differences(known: dict[str, Any], found: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, int, int]]:
    for key, value in known.items():
        if isinstance(value, dict):
            yield from _differences(value, found.get(key, {}), f"{prefix}{key}, ")
        elif (there := found.get(key, 0)) != value:
            yield f"{prefix}{key}", value, there
