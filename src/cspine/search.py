"""A study searched by a run of detectors: by its models, or, where they may have seen it, what it found out of fold."""

from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from cspine.data.geometry import Geometry
from cspine.data.preprocess import Crop
from cspine.errors import UsageError, UserError
from cspine.inference import LoadedMember
from cspine.paths import need
from cspine.predictor import OpenStudy
from cspine.runs import ENSEMBLE, RUN_TABLES, all_runs
from cspine.tables import STUDY, read_found_boxes
from cspine.tasks.detector import found_boxes

KIND, NOBODY = "localise", "none"


def choose_detector(oof: Path, name: str | None) -> str | None:
    """The run to search with: that of the name, nobody for `none`; without a name the one whole run of detectors.

    Says what it passes over. Raises UsageError where several are whole.
    """
    if name is not None:
        return None if name == NOBODY else name
    lacks = {run.name: run.lacks() for run in all_runs(oof, KIND)}
    for run, lack in lacks.items():
        if lack:
            print(f"passed over {run}: {lack}")
    whole = [run for run, lack in lacks.items() if lack is None]
    if len(whole) > 1:
        raise UsageError(
            f"{oof}/ holds several runs of detectors ({', '.join(whole)}): say which is to search, "
            f"for example --detector {whole[0]}, or --detector {NOBODY}"
        )
    return whole[0] if whole else None


class Search:
    """A loaded run of detectors, and what it found out of fold in the studies of the data that it was trained on."""

    def __init__(self, oof: Path, member: LoadedMember) -> None:
        """Raises UserError for a run of another kind, or where a file is missing that the search reads."""
        config = member.config
        if not config.task.startswith(f"{KIND}/"):
            raise UserError(f"{config.name} is a run of {config.task}, which finds no boxes; name one of {KIND}/...")
        self.member, self.name, self.stage1 = member, config.name, str(config.stage1)
        if config.localise.search == "fractured":
            need(oof / ENSEMBLE / "blend.json", "python src/ensemble.py")
        # Only studies in the table of stage 1 can be trained on or held out.
        slices = need(oof / self.stage1 / RUN_TABLES["vertebra"], _command(self.stage1))
        self._trained_on = frozenset(pd.read_parquet(slices, columns=[STUDY])[STUDY])
        self._table = oof / self.name / RUN_TABLES[KIND]

    def trained_on(self, uid: str) -> bool:
        """Some of its models may have learned from the study."""
        return uid in self._trained_on

    def find(
        self, uid: str, study: OpenStudy, geometry: Geometry, crop: Crop, fractured: np.ndarray | None
    ) -> pd.DataFrame:
        """The study's boxes under tables.FOUND_BOXES; `crop` is the square that the run's preprocessing cuts.

        `fractured`, bool (7,), are the levels taken for fractured, for a run that searches those alone. Raises
        UserError for a study that was trained on where not all folds are.
        """
        if self.trained_on(uid):
            return self._out_of_fold[self._out_of_fold[STUDY] == uid]
        config, presence = self.member.config, study.presence(self.stage1)
        searched = presence
        if config.localise.search == "fractured":
            assert fractured is not None  # there is an ensemble
            searched = presence * fractured
        found = self.member.infer(study.images(self.member).with_stage1(searched), study.device)
        return found_boxes(found, presence, uid, geometry, crop, config)

    def note(self, uid: str, boxes: int) -> str:
        """What to tell of a study's boxes, so many."""
        how = " out of fold" if self.trained_on(uid) else ""
        return f"Lesions by {self.name}: {boxes or 'no'} {'box' if boxes == 1 else 'boxes'} found{how}."

    @cached_property
    def _out_of_fold(self) -> pd.DataFrame:
        return read_found_boxes(need(self._table, _command(self.name)))


def _command(run: str) -> str:
    return f"python src/train.py --config <the config named {run}> --fold all"
