"""What all fracture heads share: who is trained on and who predicted, the prior, the table of studies and its score."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from cspine.aggregate import overall
from cspine.anatomy import LEVELS, TARGETS
from cspine.config import Config
from cspine.errors import UserError
from cspine.metrics import weighted_log_loss
from cspine.paths import find_dataset
from cspine.tables import STUDY, read_labels
from cspine.tasks.base import folds_in_use, open_studies

# Few studies lack a level; its prior there is estimated as if so many more had shown its prevalence.
USUAL_STUDIES = 5.0


class FractureHead:
    """Trains on the studies outside the fold and predicts every study of the fold."""

    run_table = "oof.csv"

    def __init__(self, config: Config, fold: int | None) -> None:
        self.config, self.fold = config, fold
        folds = folds_in_use(config)
        labels = read_labels(find_dataset(config) / "train.csv").set_index(STUDY)
        self.labels = labels.loc[folds[STUDY], list(TARGETS)]
        held_out = folds["fold"] == fold
        # What is said of a study without usable images, and of a level that is not judged.
        self.priors: dict[str, float] = self.labels[(~held_out).to_numpy()].mean().to_dict()
        self.held_out = folds[held_out]
        self.training = open_studies(config, folds[~held_out])
        self.predicted = open_studies(config, self.held_out)

    def fit_priors(self, judged: Mapping[str, np.ndarray]) -> None:
        """Fit the levels' priors on the studies trained on that lack them, bool (7,) by study: `judged` or not.

        A level that stage 1 does not find, or not whole, is not fractured as often as one that it finds.
        """
        uids = [study.uid for study in self.training]
        labels = self.labels.loc[uids, list(LEVELS)].to_numpy(float)
        lacking = ~np.array([judged[uid] for uid in uids], bool).reshape(labels.shape)
        usual = np.array([self.priors[level] for level in LEVELS])
        fitted = ((labels * lacking).sum(axis=0) + USUAL_STUDIES * usual) / (lacking.sum(axis=0) + USUAL_STUDIES)
        self.priors |= dict(zip(LEVELS, fitted.tolist(), strict=True))

    def study_table(self, rows: Mapping[str, np.ndarray]) -> pd.DataFrame:
        """The fold's table of the eight probabilities by study; one without a row gets the priors."""
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


def require_model(config: Config, name: str) -> None:
    """Raises UserError where the config names another model than its task works with."""
    if config.model.name != name:
        raise UserError(f"{config.name}: task={config.task} needs model.name={name}, not {config.model.name}")


def weighted_entropy(
    logits: torch.Tensor, truth: torch.Tensor, weights: torch.Tensor, positive_weight: float
) -> torch.Tensor:
    """The mean of weights times binary cross entropy, in which a positive counts `positive_weight` times as much.

    Not divided by the weights of the batch: they are even over all samples (metrics.even_weights), so that a positive
    counts alike in every batch, and several processes learn what one does.
    """
    each = binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return (each * weights * (1 + (positive_weight - 1) * truth)).mean()


def study_loss(
    outputs: torch.Tensor, fractured: torch.Tensor, weights: torch.Tensor, positive_weight: float
) -> torch.Tensor:
    """Of logits (n, 8) against labels (n, 8), by metrics.study_weights: the entropy of the patients plus the levels'.

    Both count alike, as in the competition's metric.
    """
    patients = weighted_entropy(outputs[:, 0], fractured[:, 0], weights[:, 0], positive_weight)
    return patients + weighted_entropy(outputs[:, 1:], fractured[:, 1:], weights[:, 1:], positive_weight)


def blended_row(found: np.ndarray, judged: np.ndarray, priors: dict[str, float], config: Config) -> np.ndarray:
    """The eight probabilities from the model's eight: levels that are not judged, bool (7,), get their priors.

    The patient's is the mean of the model's and that of the levels, by the weight `aggregate.overall_head`.
    """
    levels = np.where(judged, found[1:], [priors[level] for level in LEVELS])
    share = config.aggregate.overall_head
    return np.array([share * found[0] + (1 - share) * overall(levels), *levels])
