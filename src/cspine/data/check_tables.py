"""The tables of a dataset: readable, at one with themselves and with the studies on disk."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from cspine.anatomy import LEVELS, OVERALL
from cspine.data.boxes import place_boxes
from cspine.data.check_study import AGAIN, StudyFacts
from cspine.data.findings import Finding
from cspine.data.layout import box_file, image_folder, label_file, rows_file
from cspine.errors import UserError
from cspine.tables import STUDY, read_boxes, read_labels, read_test_rows

AS_IT_WAS = "take the file as the competition has it"


@dataclass
class Tables:
    """What could be read of a split's tables; None for the rest."""

    labels: pd.DataFrame | None = None
    boxes: pd.DataFrame | None = None
    rows: pd.DataFrame | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def studies(self) -> set[str] | None:
        """The studies that the split's main table names."""
        table = self.rows if self.labels is None else self.labels
        return None if table is None else set(table[STUDY])


def read_tables(root: Path, split: str) -> Tables:
    """The tables of `train` or `test`, with findings on those that cannot be read or contradict themselves."""
    tables = Tables()
    if split == "test":
        tables.rows = _read(read_test_rows, rows_file(root), tables.findings)
        return tables
    tables.labels = _read(read_labels, label_file(root), tables.findings)
    if tables.labels is not None:
        tables.findings += _check_labels(label_file(root), tables.labels)
    file = box_file(root)
    if file.is_file():
        tables.boxes = _read(read_boxes, file, tables.findings)
    else:
        remedy = "download it; without it no box is used"
        tables.findings.append(Finding("warning", "missing table", str(file), "the file is missing", remedy))
    return tables


def _read(reader, file: Path, findings: list[Finding]) -> pd.DataFrame | None:
    try:
        return reader(file)
    except UserError as error:
        findings.append(Finding("error", "unreadable table", str(file), str(error), AS_IT_WAS))
        return None


def _check_labels(file: Path, labels: pd.DataFrame) -> Iterator[Finding]:
    wrong = labels[labels[OVERALL] != labels[list(LEVELS)].max(axis=1)]
    if len(wrong):
        what = f"{OVERALL} contradicts C1 to C7 in {len(wrong)} studies: {', '.join(wrong[STUDY][:3])}"
        remedy = "correct the row if it is a slip; both are trained on as they stand"
        yield Finding("warning", "contradicting labels", str(file), what, remedy)


def compare_with_images(root: Path, split: str, wanted: set[str], found: list[str]) -> Iterator[Finding]:
    """Studies of the table without images, and images without a row."""
    folder = image_folder(root, split)
    if split == "test":
        # The public test set is a stub whose table and images do not match; the hidden one does.
        if missing := sorted(wanted - set(found)):
            what = f"{len(missing)} studies of test.csv have no images: {', '.join(missing[:3])}"
            remedy = "nothing in the public stub: their rows get the priors"
            yield Finding("warning", "studies without images", str(folder), what, remedy)
        return
    for uid in sorted(wanted - set(found)):
        what = "the study is in train.csv and has no images"
        yield Finding("error", "studies without images", str(folder / uid), what, AGAIN)
    for uid in sorted(set(found) - wanted):
        what, remedy = "the study has images and no row in train.csv", "nothing: it is not used; or add its row"
        yield Finding("warning", "studies without labels", str(folder / uid), what, remedy)


def check_boxes(root: Path, tables: Tables, usable: dict[str, StudyFacts]) -> Iterator[Finding]:
    """Boxes of unknown studies, on slices that do not exist, empty, or outside the image."""
    if tables.boxes is None:
        return
    file = str(box_file(root))
    for uid, group in tables.boxes.groupby(STUDY):
        if tables.studies is not None and uid not in tables.studies:
            what = f"{len(group)} boxes of the unknown study {uid}"
            yield Finding("warning", "boxes without a study", file, what, "they are not used")
        elif facts := usable.get(str(uid)):
            yield from _check_study_boxes(file, str(uid), facts, group)


def _check_study_boxes(file: str, uid: str, facts: StudyFacts, boxes: pd.DataFrame) -> Iterator[Finding]:
    unknown = boxes.loc[~boxes["slice_number"].isin(facts.geometry.file_numbers), "slice_number"]
    if len(unknown):
        what = f"study {uid}: {len(unknown)} boxes on slices that do not exist, the first on {unknown.iloc[0]}"
        yield Finding(
            "warning", "boxes without a slice", file, what, f"they are not used; if slices are missing, {AGAIN}"
        )
    right, bottom = boxes["x"] + boxes["width"], boxes["y"] + boxes["height"]
    inside = (boxes["x"] >= 0) & (boxes["y"] >= 0) & (right <= facts.columns) & (bottom <= facts.rows)
    outside = boxes.loc[~(inside & (boxes["width"] > 0) & (boxes["height"] > 0)), "slice_number"]
    if len(outside):
        what = f"study {uid}: {len(outside)} boxes empty or outside the image, the first on slice {outside.iloc[0]}"
        remedy = "correct them; only what lies inside the image is used"
        yield Finding("warning", "boxes outside the image", file, what, remedy)
    if boxes["slice_number"].duplicated().any():
        first = boxes.loc[boxes["slice_number"].duplicated(), "slice_number"].iloc[0]
        what = f"study {uid}: slice {first} has several boxes"
        yield Finding("warning", "several boxes on a slice", file, what, "one box about all of them is used")


def count_gapped(boxes: pd.DataFrame, usable: dict[str, StudyFacts]) -> int:
    """Studies with slices that have no box between slices that have one."""
    gapped = 0
    for uid, group in boxes.groupby(STUDY):
        if facts := usable.get(str(uid)):
            present = place_boxes(group, facts.geometry, (facts.rows, facts.columns)).present.nonzero()[0]
            gapped += bool(len(present) and present[-1] - present[0] + 1 > len(present))
    return gapped
