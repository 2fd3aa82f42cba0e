"""What all fracture heads share: who is trained on and who predicted, the prior, the table of studies and its score."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cspine.anatomy import TARGETS
from cspine.config import Config
from cspine.metrics import weighted_log_loss
from cspine.paths import find_dataset
from cspine.tables import STUDY, read_labels
from cspine.tasks.base import folds_in_use, open_studies


class FractureHead:
    """Trains on the studies outside the fold and predicts every study of the fold."""

    run_table = "oof.csv"

    def __init__(self, config: Config, fold: int | None) -> None:
        self.config, self.fold = config, fold
        folds = folds_in_use(config)
        labels = read_labels(find_dataset(config) / "train.csv").set_index(STUDY)
        self.labels = labels.loc[folds[STUDY], list(TARGETS)]
        held_out = folds["fold"] == fold
        self.priors: dict[str, float] = self.labels[(~held_out).to_numpy()].mean().to_dict()
        self.held_out = folds[held_out]
        self.training = open_studies(config, folds[~held_out])
        self.predicted = open_studies(config, self.held_out)

    def study_table(self, rows: Mapping[str, np.ndarray]) -> pd.DataFrame:
        """The fold's table of the eight probabilities by study; one without a row gets the prevalence outside it."""
        prior = [self.priors[target] for target in TARGETS]
        table = pd.DataFrame([rows.get(uid, prior) for uid in self.held_out[STUDY]], columns=list(TARGETS))
        table.insert(0, STUDY, self.held_out[STUDY].to_numpy())
        table.insert(1, "fold", self.fold)
        return table

    def score(self, predictions: pd.DataFrame) -> dict[str, float]:
        """The competition's loss of the fold before blending and calibration."""
        labels = self.labels.loc[predictions[STUDY]].to_numpy()
        return {"column_loss": weighted_log_loss(labels, predictions[list(TARGETS)].to_numpy(), "column")}

    def facts(self) -> dict[str, Any]:
        return {"priors": self.priors}

    @staticmethod
    def join(tables: list[pd.DataFrame]) -> pd.DataFrame:
        return pd.concat(tables, ignore_index=True)


def mean_priors(facts: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The mean of the folds' priors, by target."""
    return {target: float(np.mean([fact["priors"][target] for fact in facts])) for target in TARGETS}
