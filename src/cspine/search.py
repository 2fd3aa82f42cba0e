"""A study searched by a run of detectors: by its models, or, where they may have seen it, what it found out of fold.

Of what is found the surest is told: boxes that score at least what as many lesions as studies do out of fold.
"""

from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from cspine.box_runs import LESIONS
from cspine.data.geometry import Geometry
from cspine.data.preprocess import Crop
from cspine.errors import UsageError, UserError
from cspine.inference import LoadedMember
from cspine.paths import need
from cspine.predictor import OpenStudy
from cspine.runs import ENSEMBLE, RUN_TABLES, all_runs
from cspine.tables import STUDY, read_csv, read_found_boxes
from cspine.tasks.detector import found_boxes

KIND, NOBODY = "localise", "none"
# In the place of detectors the fracture head of the reader says where it is hottest.
HEAT = "heat"
# Out of fold, on average; of patients with a fracture most have one or two fractured levels, and half have none.
LESIONS_A_STUDY = 1.0


def choose_detector(oof: Path, name: str | None) -> str | None:
    """The run to search with: that of the name, nobody for `none`; without a name the one whole run of detectors.

    Without any whole run it is HEAT. Says what it passes over. Raises UsageError where several are whole.
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
            f"for example --detector {whole[0]}, --detector {HEAT} for none of them, or --detector {NOBODY}"
        )
    return whole[0] if whole else HEAT


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
        self._folder = oof / self.name

    def trained_on(self, uid: str) -> bool:
        """Some of its models may have learned from the study."""
        return uid in self._trained_on

    def find(
        self, uid: str, study: OpenStudy, geometry: Geometry, crop: Crop, fractured: np.ndarray | None
    ) -> pd.DataFrame:
        """The study's boxes under tables.FOUND_BOXES that score at least `least_score`.

        `crop` is the square that the run's preprocessing cuts; `fractured`, bool (7,), are the levels taken for
        fractured, for a run that searches those alone. Raises UserError for a study that was trained on where not all
        folds are.
        """
        if self.trained_on(uid):
            boxes = self._out_of_fold[self._out_of_fold[STUDY] == uid]
        else:
            boxes = self._search(uid, study, geometry, crop, fractured)
        return boxes[boxes["score"] >= self.least_score]

    def _search(
        self, uid: str, study: OpenStudy, geometry: Geometry, crop: Crop, fractured: np.ndarray | None
    ) -> pd.DataFrame:
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
        cut = f" that score at least {self.least_score:.2f}" if self.least_score else ""
        return f"Lesions by {self.name}: {boxes or 'no'} {'box' if boxes == 1 else 'boxes'} found{how}{cut}."

    @cached_property
    def least_score(self) -> float:
        """As many lesions as LESIONS_A_STUDY score this; 0 where fewer were found, or not all folds are trained.

        Out of fold one model tells; the mean over several, of a new study, is rather lower, and so fewer are shown.
        """
        if not (file := self._folder / LESIONS).exists():
            return 0.0
        scores = np.sort(read_csv(file, ("score",))["score"].to_numpy(float))[::-1]
        kept = round(LESIONS_A_STUDY * len(self._trained_on))
        return float(scores[kept - 1]) if len(scores) > kept else 0.0

    @cached_property
    def _out_of_fold(self) -> pd.DataFrame:
        return read_found_boxes(need(self._folder / RUN_TABLES[KIND], _command(self.name)))


def _command(run: str) -> str:
    return f"python src/train.py --config <the config named {run}> --fold all"
