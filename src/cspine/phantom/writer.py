"""A phantom data set in the competition's layout: studies made in parallel, resumable, tables written at the end."""

import multiprocessing
import shutil
import signal
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import pandas as pd
from tqdm import tqdm

from cspine.anatomy import LEVELS, OVERALL, TARGETS
from cspine.config import differences
from cspine.errors import UserError
from cspine.paths import read_json, write_json
from cspine.phantom.acquisition import Acquisition, draw_acquisition
from cspine.phantom.anatomy import draw_patient, render, vertebrae
from cspine.phantom.annotation import find_boxes, flawed_mask
from cspine.phantom.canvas import Canvas
from cspine.phantom.dicom_files import file_numbers, write_mask, write_series
from cspine.phantom.fractures import FRACTURE_COLUMNS, Fracture, cracks_by_level, describe, draw_fractures, mark_missed
from cspine.phantom.labels import StudyPlan, plan_study, study_uid
from cspine.phantom.scanner import draw_scanner, scan
from cspine.phantom.visibility import visibility
from cspine.tables import BOX_COLUMNS, STUDY, write_table

VERSION = 4
MARKER = "phantom.json"
RECORDS = ".records"
STUB_ROWS = 3


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to make; two data sets from the same order are identical."""

    studies: int
    test_studies: int
    seed: int
    matrix: int = 512
    spacing_mm: float | None = None  # drawn for each study
    mask_share: float = 0.5
    box_share: float = 0.25
    kaggle_stub: bool = False

    def asked(self) -> list[tuple[str, str]]:
        """(uid, target) of the rows of test.csv: all eight of every test study; of a stub, C1 of three absent ones."""
        if self.kaggle_stub:
            after = range(self.test_studies, self.test_studies + STUB_ROWS)
            return [(study_uid(self.seed, "test", k), LEVELS[0]) for k in after]
        uids = [study_uid(self.seed, "test", k) for k in range(self.test_studies)]
        return [(uid, target) for uid in uids for target in (*LEVELS, OVERALL)]

    def plans(self) -> list[StudyPlan]:
        shares = {"mask_share": self.mask_share, "box_share": self.box_share}
        train = [plan_study(self.seed, "train", k, **shares) for k in range(self.studies)]
        return train + [plan_study(self.seed, "test", k, **shares) for k in range(self.test_studies)]


def make_dataset(out: Path, order: Order, processes: int = 1) -> None:
    """Make the data set, or what is missing of it. Raises UserError where the folder holds something else."""
    if _claim(out, order):
        return
    plans = order.plans()
    missing = [plan for plan in plans if not _record_file(out, plan).is_file()]
    for _ in tqdm(_make_all(out, order, missing, processes), "phantom", len(missing), unit="study", disable=None):
        pass
    _write_tables(out, order, [(plan, read_json(_record_file(out, plan))) for plan in plans])
    write_json(out / MARKER, {**_marker(order), "complete": True})
    shutil.rmtree(out / RECORDS)


def make_study(out: Path, order: Order, plan: StudyPlan) -> None:
    """Render one study and write its files; its record, written last, says that it is done."""
    canvas, fractures, acquisition = render_study(plan, order.matrix, order.spacing_mm)
    rng = plan.rng("scanner")
    scanner = draw_scanner(rng)
    numbers = file_numbers(plan, canvas.grid.shape[0])
    patient = draw_patient(plan.rng("anatomy"))
    seen = [visibility(f, canvas, patient, scanner.kernel.blur_mm, scanner.noise_hu) for f in fractures]
    record = {
        "boxes": find_boxes(canvas, fractures, numbers, plan.rng("boxes")) if plan.has_boxes else [],
        "fractures": [describe(f, canvas, numbers, v) for f, v in zip(fractures, seen, strict=True)],
    }
    if plan.has_mask:
        mask = flawed_mask(canvas.label, canvas.grid, plan.rng("mask"))
        write_mask(out / "segmentations" / f"{plan.uid}.nii", mask, canvas.grid)
    grid, painted = canvas.grid, canvas.hu
    del canvas  # its other volumes take more memory than the image
    hu = scan(painted, grid, acquisition.thickness_mm, scanner, rng)
    write_series(out / f"{plan.split}_images" / plan.uid, hu, grid, plan, acquisition.thickness_mm)
    write_json(_record_file(out, plan), record)


def render_study(plan: StudyPlan, matrix: int, spacing_mm: float | None) -> tuple[Canvas, list[Fracture], Acquisition]:
    """The study before the scanner saw it, with its fractures, and how it is to be scanned."""
    spine, bone, seeds = draw_patient(plan.rng("anatomy"))
    acquisition = draw_acquisition(spine, plan, matrix, spacing_mm)
    fractures = draw_fractures(plan.levels, spine, vertebrae(spine, seeds), plan.rng("fractures"))
    canvas = render(acquisition.grid, spine, bone, seeds, cracks_by_level(fractures))
    mark_missed(canvas, fractures, spine)
    return canvas, fractures, acquisition


def label_row(plan: StudyPlan) -> dict[str, Any]:
    """The study's row of `train.csv`."""
    row = {STUDY: plan.uid, OVERALL: int(bool(plan.levels))}
    return row | {name: int(i in plan.levels) for i, name in enumerate(LEVELS)}


def _make_all(out: Path, order: Order, plans: list[StudyPlan], processes: int) -> Iterator[None]:
    work = partial(make_study, out, order)
    if processes <= 1 or len(plans) <= 1:
        yield from map(work, plans)
        return
    # The first study compiles the kernels; workers started after it find them in numba's cache.
    work(plans[0])
    yield None
    # Spawned, not forked: OpenCV's threads, started by the first study, would not survive a fork.
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), initializer=_start_worker)
    try:
        for future in as_completed([pool.submit(work, plan) for plan in plans[1:]]):
            yield future.result()
    except BrokenProcessPool as error:
        raise UserError("a worker process died, perhaps for want of memory; try fewer --processes") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    # Ctrl-C is the parent's to handle: it lets the studies begun be finished and cancels the rest.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)


def _claim(out: Path, order: Order) -> bool:
    """Mark the folder as ours; True if it already holds exactly this data set."""
    marker = out / MARKER
    if marker.is_file():
        there = read_json(marker)
        changed = differences({k: v for k, v in there.items() if k != "complete"}, _marker(order))
        if changed:
            raise UserError(
                f"{out} holds another phantom ({'; '.join(changed)}); choose another --out, or delete it: rm -r {out}"
            )
        return there["complete"] and all((out / f"{p.split}_images" / p.uid).is_dir() for p in order.plans())
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not empty and is no phantom data set; choose another --out")
    write_json(marker, {**_marker(order), "complete": False})
    return False


def _marker(order: Order) -> dict[str, Any]:
    return {"version": VERSION, **asdict(order)}


def _record_file(out: Path, plan: StudyPlan) -> Path:
    return out / RECORDS / f"{plan.split}-{plan.index}.json"


def _write_tables(out: Path, order: Order, made: list[tuple[StudyPlan, dict[str, Any]]]) -> None:
    train = [(plan, record) for plan, record in made if plan.split == "train"]
    test = [plan for plan, _ in made if plan.split == "test"]
    labels = (STUDY, *TARGETS)
    _write(out / "train.csv", (label_row(plan) for plan, _ in train), labels)
    _write(out / "test_answers.csv", map(label_row, test), labels)
    _write(out / "train_bounding_boxes.csv", _rows(train, "boxes"), (STUDY, *BOX_COLUMNS))
    _write(out / "fractures.csv", _rows(made, "fractures"), (STUDY, *FRACTURE_COLUMNS))
    rows = [{"row_id": f"{uid}_{target}", STUDY: uid, "prediction_type": target} for uid, target in order.asked()]
    _write(out / "test.csv", rows, ("row_id", STUDY, "prediction_type"))
    _write(out / "sample_submission.csv", ({**row, "fractured": 0.5} for row in rows), ("row_id", "fractured"))


def _rows(made: list[tuple[StudyPlan, dict[str, Any]]], name: str) -> list[dict[str, Any]]:
    return [{STUDY: plan.uid, **row} for plan, record in made for row in record[name]]


def _write(file: Path, rows: Iterable[dict[str, Any]], columns: tuple[str, ...]) -> None:
    write_table(pd.DataFrame(list(rows), columns=list(columns)), file)
