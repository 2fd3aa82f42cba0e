"""Rows asked for in, submission.csv out: every row once, whatever is on the disk, and a valid file from the start."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from cspine.anatomy import TARGETS
from cspine.budget import Budget, Plan
from cspine.bundle import Bundle
from cspine.config import DatasetConfig
from cspine.data.decode import DecodeTask
from cspine.data.layout import image_folder, rows_file, studies_in, studies_on_disk, study_path
from cspine.dispatch import Answer, Limits, answers
from cspine.engine.distributed import all_devices, share_cores
from cspine.errors import UserError, refuse
from cspine.paths import find_dataset
from cspine.predictor import Complain, Predictor
from cspine.submission_file import Row, SubmissionFile
from cspine.tables import STUDY, read_test_rows

SAVE_SECONDS = 10.0
TELL_SECONDS = 60.0


@dataclass
class Outcome:
    """Studies predicted, and those with the prior and why; seconds of all, by run and of reading and decoding."""

    predicted: int = 0
    bad: dict[str, str] = field(default_factory=dict)
    seconds: Counter[str] = field(default_factory=Counter)


def submit(bundle: Bundle, rows: pd.DataFrame, images: Path, output: Path, device: str, processes: int) -> int:
    """Write `row_id,fractured` for `rows` (row_id, StudyInstanceUID, prediction_type) from `images/<uid>/`.

    A study that cannot be read gets the prior of the training data and is listed. The file holds the priors from the
    first second and the predictions so far from then on. Raises UserError for a model that does not load.
    """
    began = time.monotonic()
    asked = [Row(*row) for row in rows[["row_id", STUDY, "prediction_type"]].itertuples(index=False)]
    file = SubmissionFile(output, asked, bundle.blend["priors"])
    outcome = predict_into(file, bundle, images, device, Limits(processes), print)
    told = f"{outcome.predicted} studies predicted, {len(outcome.bad)} with the prior"
    print(f"{output}: {len(file.rows)} rows, {told}, {time.monotonic() - began:.1f} s")
    return 0


def predict_into(
    file: SubmissionFile,
    bundle: Bundle,
    images: Path,
    device: str,
    limits: Limits,
    log: Callable[[str], object],
    complain: Complain = refuse,
) -> Outcome:
    """Predict the studies of a file that holds the priors, and keep it up to date, to the end whatever ends this.

    `complain` hears of models that do not load, `log` of everything else.
    """
    share_cores(limits.readers)
    predictors = [Predictor(bundle, one, complain) for one in all_devices(device)]
    budget = Budget(predictors[0].runs, len(predictors), limits.readers)
    settings = tuple(predictors[0].preprocesses)
    tasks = [DecodeTask(uid, study_path(images, uid), settings) for uid in file.uids]
    outcome = Outcome()
    told_of = [Plan()]

    def plan_for(studies: int) -> Plan:
        plan = budget.plan(studies, limits.until - time.monotonic())
        if plan != told_of[-1]:
            log(f"{studies} studies left: {plan}")
            told_of.append(plan)
        return plan

    saved = told = time.monotonic()
    try:
        with tqdm(total=len(tasks), desc="predicting", unit="study", disable=None) as bar:
            for answer in answers(predictors, tasks, limits, plan_for):
                _take(answer, file, budget, outcome, log)
                bar.update()
                now, done = time.monotonic(), outcome.predicted + len(outcome.bad)
                if now - saved > SAVE_SECONDS or done == 1:
                    file.write()
                    saved = now
                if now - told > TELL_SECONDS or done == 1:
                    log(f"{done} of {len(tasks)} studies")
                    told = now
    finally:
        file.write()
    left = len(tasks) - outcome.predicted - len(outcome.bad)
    if left:
        log(f"the time is up: {left} {'studies keep' if left > 1 else 'study keeps'} the prior")
    return outcome


def _take(answer: Answer, file: SubmissionFile, budget: Budget, outcome: Outcome, log: Callable[[str], object]) -> None:
    read_s, decode_s = answer.study
    outcome.seconds.update({**answer.seconds, "reading": read_s, "decoding": decode_s})
    for note in answer.notes:
        log(f"{answer.uid}: {note}")
    reason = answer.reason
    if answer.row is not None:
        budget.observe(answer.seconds, read_s + decode_s, answer.plan)
        file.put(answer.uid, answer.row.tolist())
        outcome.predicted += 1
    else:
        outcome.bad[answer.uid] = str(reason)
        log(f"{answer.uid}: {reason}; its rows hold the prior")


def rows_and_images(config: DatasetConfig, split: str, studies: Path | None) -> tuple[pd.DataFrame, Path]:
    """What to predict and where its images are: the rows of test.csv, or all eight of every study on the disk."""
    if studies is not None:
        uids = studies_in(studies)
        if not uids:
            what = "each study is a folder of DICOM files or a NIfTI file (.nii, .nii.gz)"
            raise UserError(f"--studies {studies}: there is no study in it; {what}")
        return all_rows(uids), studies
    root = find_dataset(config)
    images = image_folder(root, split)
    if split == "test":
        return read_test_rows(rows_file(root)), images
    return all_rows(studies_on_disk(root, split)), images


def all_rows(uids: list[str]) -> pd.DataFrame:
    """The eight rows of each study, in the layout of test.csv."""
    rows = [(f"{uid}_{target}", uid, target) for uid in uids for target in TARGETS]
    return pd.DataFrame(rows, columns=["row_id", STUDY, "prediction_type"])
