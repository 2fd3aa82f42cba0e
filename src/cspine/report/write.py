"""Reports of studies into a folder: an HTML file and three pictures each, and of many an index page."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
from pydicom.errors import InvalidDicomError

from cspine.anatomy import TARGETS
from cspine.data.layout import study_uid
from cspine.data.study import StudyError
from cspine.errors import UserError
from cspine.lesions import LESION_COLUMNS
from cspine.paths import atomic
from cspine.report.page import write_page
from cspine.report.pictures import write_pictures
from cspine.report.reader import Reader, Reading
from cspine.tables import STUDY, read_found_boxes, read_study_table, write_table

INDEX = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Reports</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1f2933; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .3rem 1rem .3rem 0; vertical-align: top;
  border-bottom: 1px solid #d9dee4; }
td { overflow-wrap: anywhere; } .fracture { color: #b42318; font-weight: 600; }
</style></head><body>
<h1>Reports</h1>
<p>@COUNT@, the likeliest fractures first.</p>
<table><tr><th>study</th><th>probability</th><th>decision</th><th>levels</th><th>lesions</th></tr>
@ROWS@
</table></body></html>
"""

TRAINED_ON = (
    "The models were trained on this study. Its probabilities are out of fold, by those that were not; levels and heat "
    "are not."
)

# The steps whose seconds go into reading and inference; the others make the report.
READING = ("decoding", "inference", "search", "heat")


@dataclass(frozen=True)
class Wish:
    """What the reports are to hold beside what the models find."""

    boxes: Path | None = None  # boxes.csv of a detector; without it the reader's own detectors search
    show_name: bool = False


def write_report(reader: Reader, path: Path, folder: Path, oof: Path, wish: Wish | None = None) -> tuple[Path, Reading]:
    """Read a folder of DICOM files or a NIfTI file and write `<name>.html` and its pictures; prints the seconds.

    Raises StudyError where there is no study in it.
    """
    wish = wish or Wish()
    name = study_uid(path.resolve())
    boxes = None
    if wish.boxes is not None:
        table = read_found_boxes(wish.boxes)
        boxes = table[table[STUDY] == name]
    known = out_of_fold_row(oof, name)
    notes = [] if known is None else [TRAINED_ON]
    reading = reader.read(path, name, boxes, known, tuple(notes))
    began = time.perf_counter()
    title = f"{name}, {patient_name(path)}" if wish.show_name else name
    file = write_page(reading, folder / f"{name}.html", title)
    written = time.perf_counter()
    write_pictures(reading, folder, name)
    drawn = time.perf_counter()
    seconds = {**reading.seconds, "writing": written - began, "pictures": drawn - written}
    beyond = sum(spent for step, spent in seconds.items() if step not in READING)
    split = ", ".join(f"{step} {spent:.1f}" for step, spent in seconds.items())
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB; seconds: {split}; beyond reading and inference {beyond:.1f}")
    return file, reading


def write_reports(reader: Reader, paths: Sequence[Path], folder: Path, oof: Path, wish: Wish | None = None) -> Path:
    """A report of each study, `lesions.csv` of all, and `index.html`; the index. Bad studies are listed in it."""
    rows, lesions = [], []
    for path in paths:
        try:
            file, reading = write_report(reader, path, folder, oof, wish)
        except StudyError as error:
            print(f"{error}; it has no report")
            rows.append((-1.0, _row(study_uid(path), None, "no report", escape(error.reason), "")))
            continue
        lesions.append(reading.lesions)
        found = [level.name for level in reading.levels if level.decision == "fracture"]
        told = reading.patient
        decision = "" if told is None else ("fracture" if told[0] >= told[1] else "no fracture")
        shown = "" if told is None else f"{told[0]:.3f}"
        count = str(len(reading.lesions)) if len(reading.lesions) else ""
        link = f'<a href="{escape(file.name, quote=True)}">{escape(reading.name)}</a>'
        cells = _row(link, shown, decision, ", ".join(found), count)
        rows.append((told[0] if told else 0.0, cells))
    known = [table for table in lesions if len(table)]
    write_table(
        pd.concat(known, ignore_index=True).round(6) if known else pd.DataFrame(columns=list(LESION_COLUMNS)),
        folder / "lesions.csv",
    )
    rows.sort(key=lambda row: -row[0])
    text = INDEX.replace("@COUNT@", f"{len(rows)} studies").replace("@ROWS@", "\n".join(cells for _, cells in rows))
    with atomic(folder / "index.html") as temporary:
        temporary.write_text(text, encoding="utf-8")
    return folder / "index.html"


def out_of_fold_row(oof: Path, uid: str) -> np.ndarray | None:
    """The ensemble's out-of-fold probabilities (8,) of a study that it was trained on; None for another."""
    file = oof / "ensemble" / "oof.csv"
    if not file.exists():
        return None
    table = read_study_table(file).set_index(STUDY)
    return table.loc[uid, list(TARGETS)].to_numpy(float) if uid in table.index else None


def patient_name(path: Path) -> str:
    """The patient's name and number as the first DICOM file of a folder has them. Raises UserError for other files."""
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else []
    for file in files:
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["PatientName", "PatientID"])
        except (InvalidDicomError, OSError):
            continue
        words = [str(header.get(tag, "")) for tag in ("PatientName", "PatientID")]
        return " ".join(word for word in words if word) or "no name in the header"
    raise UserError(f"{path}: --show-name needs DICOM files, whose headers hold a name")


def _row(study: str, probability: str | None, decision: str, levels: str, lesions: str) -> str:
    mark = ' class="fracture"' if decision == "fracture" else ""
    return (
        f"<tr><td>{study}</td><td>{probability or ''}</td><td{mark}>{decision}</td><td>{levels}</td>"
        f"<td>{lesions}</td></tr>"
    )
