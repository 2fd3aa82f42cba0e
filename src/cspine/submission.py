"""Rows asked for in, submission.csv out: every row once, whatever is on the disk, and a valid file from the start."""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from cspine.anatomy import TARGETS
from cspine.bundle import MANIFEST, Bundle, read
from cspine.config import DatasetConfig
from cspine.data.decode import DecodeTask, decode_studies
from cspine.data.layout import image_folder, rows_file, studies_in, studies_on_disk, study_path
from cspine.engine.distributed import choose_device, share_cores
from cspine.errors import UserError
from cspine.inference import Predictor, study_images
from cspine.paths import find_dataset
from cspine.tables import STUDY, read_test_rows, submission_rows, write_table

SAVE_SECONDS = 60.0
# /kaggle/input/<dataset>/ or /kaggle/input/<kind>/<owner>/<dataset>/, looked at level by level because a glob over
# everything would list hundreds of thousands of slices.
SEARCH_DEPTH = 4


def submit_from_kaggle(inputs: Path, output: Path) -> int:
    """Find the weights and the test data below `inputs` and write the submission."""
    bundle = read(_find_folder(inputs, MANIFEST))
    root = _find_folder(inputs, "test_images")
    return submit(bundle, read_test_rows(rows_file(root)), image_folder(root, "test"), output, "auto", processes=2)


def submit(bundle: Bundle, rows: pd.DataFrame, images: Path, output: Path, device: str, processes: int) -> int:
    """Write `row_id,fractured` for `rows` (row_id, StudyInstanceUID, prediction_type) from `images/<uid>/`.

    A study that cannot be read gets the prior of the training data and is listed. The file holds the priors from the
    first second and the predictions so far from then on.
    """
    began = time.monotonic()
    priors = bundle.blend["priors"]
    uids = list(dict.fromkeys(rows[STUDY]))
    done: dict[str, np.ndarray] = {}
    bad: dict[str, str] = {}
    _write(rows, done, priors, output)
    share_cores(processes)
    predictor = Predictor(bundle, choose_device(device))
    saved = time.monotonic()
    with tqdm(total=len(uids), desc="predicting", unit="study", disable=None) as bar:
        for uid, result in _predict(predictor, uids, images, processes):
            if isinstance(result, str):
                bad[uid] = result
            else:
                done[uid] = result
            bar.update()
            if time.monotonic() - saved > SAVE_SECONDS:
                _write(rows, done, priors, output)
                saved = time.monotonic()
    _write(rows, done, priors, output)
    for uid, reason in bad.items():
        print(f"{uid}: {reason}; its rows hold the prior")
    print(
        f"{output}: {rows['row_id'].nunique()} rows, {len(done)} studies predicted, {len(bad)} with the prior, "
        f"{time.monotonic() - began:.1f} s"
    )
    return 0


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


def _predict(
    predictor: Predictor, uids: list[str], images: Path, processes: int
) -> Iterator[tuple[str, np.ndarray | str]]:
    """(uid, eight probabilities) or (uid, the reason why there are none), as the studies are decoded."""
    tasks = [DecodeTask(uid, study_path(images, uid), tuple(predictor.preprocesses)) for uid in uids]
    for task, study in decode_studies(tasks, processes):
        if study.bad is not None:
            yield task.uid, study.bad
            continue
        try:
            yield task.uid, predictor.predict(partial(study_images, study))
        except (RuntimeError, ValueError) as error:
            # Out of memory on one huge study, say: its rows keep the prior, the others go on.
            yield task.uid, f"{type(error).__name__}: {str(error).splitlines()[0]}"


def _write(rows: pd.DataFrame, done: dict[str, np.ndarray], priors: dict[str, float], output: Path) -> None:
    table = pd.DataFrame(list(done.values()), columns=list(TARGETS))
    table.insert(0, STUDY, list(done))
    write_table(submission_rows(rows, table, priors), output)


def _find_folder(inputs: Path, name: str) -> Path:
    """The first folder, at most a few levels down, that holds a file or folder of this name."""
    for depth in range(SEARCH_DEPTH + 1):
        if found := sorted(inputs.glob("/".join(["*"] * depth + [name]))):
            return found[0].parent
    raise UserError(f"{inputs}: no folder in it holds {name}; is the dataset attached to the kernel?")
