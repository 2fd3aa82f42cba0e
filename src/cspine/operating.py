"""Operating points of a table of predictions: every usual rule by target, in-sample and nested; PPV and NPV."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from cspine.anatomy import LEVELS, OVERALL, TARGETS
from cspine.metrics import accuracy, f1, sensitivity, specificity
from cspine.scores import number
from cspine.thresholds import best_thresholds, nested_thresholds, usual_rules

CLINIC = 0.07  # of the patients sent to a clinic's CT; among the 2,019 studies of RSNA it is 0.48
VERTEBRAE = "vertebrae"  # the seven levels of all patients together
MEASURES = ("f1", "accuracy", "sensitivity", "specificity")
HEADER = ("rule", "F1", "nested", "accuracy", "nested", "sens.", "nested", "spec.", "nested", "PPV", "NPV")


def predictive_values(found: float | None, left_alone: float | None, prevalence: float) -> tuple[float | None, ...]:
    """PPV and NPV of a sensitivity and a specificity at a prevalence, by Bayes; None where nothing is decided so."""
    if found is None or left_alone is None:
        return None, None
    hit, missed = found * prevalence, (1 - found) * prevalence
    false, clear = (1 - left_alone) * (1 - prevalence), left_alone * (1 - prevalence)
    return (hit / (hit + false) if hit + false else None), (clear / (clear + missed) if clear + missed else None)


def shift_prevalence(frequencies: np.ndarray, here: float, there: float) -> np.ndarray:
    """Calibrated frequencies of a population of prevalence `here` as they are in one of prevalence `there`.

    Bayes with the same likelihood ratios: odds times the ratio of the prior odds (Saerens et al., Neural Computation
    14, 2002). Prevalences lie within 0 and 1, both excluded.
    """
    ratio = there / (1 - there) * (1 - here) / here
    return frequencies * ratio / (frequencies * ratio + 1 - frequencies)


def operating_points(
    labels: np.ndarray, probabilities: np.ndarray, folds: np.ndarray, rule: str, prevalence: float = CLINIC
) -> pd.DataFrame:
    """A row for every usual rule (`rule` in the place of its kind) and target, the patient and all vertebrae last.

    `threshold` is fitted on all rows (n, 8) and `<measure>` is measured on them; `nested_<measure>` is decided fold by
    fold at thresholds fitted on the others. `ppv` and `npv`, of the patient alone, are nested and at the prevalence.
    """
    rows = []
    for name in usual_rules(rule):
        cuts = best_thresholds(labels, probabilities, name)
        in_sample = probabilities >= cuts
        nested = probabilities >= nested_thresholds(labels, probabilities, folds, name)
        for target in (*LEVELS, OVERALL, VERTEBRAE):
            columns = slice(1, None) if target == VERTEBRAE else TARGETS.index(target)
            truth = labels[:, columns]
            row: dict[str, Any] = {"rule": name, "target": target}
            row["threshold"] = None if target == VERTEBRAE else float(cuts[columns])
            row |= _measured(truth, in_sample[:, columns], "") | _measured(truth, nested[:, columns], "nested_")
            if target == OVERALL:
                found, left_alone = row["nested_sensitivity"], row["nested_specificity"]
                row["ppv"], row["npv"] = predictive_values(found, left_alone, prevalence)
            rows.append(row)
    return pd.DataFrame(rows).astype({"threshold": float})


def _measured(truth: np.ndarray, decided: np.ndarray, prefix: str) -> dict[str, float | None]:
    measures = (f1, accuracy, sensitivity, specificity)
    return {prefix + name: measure(truth, decided) for name, measure in zip(MEASURES, measures, strict=True)}


def operating_rows(points: pd.DataFrame, target: str) -> list[list[str]]:
    """The cells under HEADER for one target of `operating_points`."""
    cells: Sequence[str] = [column for name in MEASURES for column in (name, f"nested_{name}")]
    chosen = points[points["target"] == target]
    return [
        [str(row["rule"]), *(_told(row[name]) for name in (*cells, "ppv", "npv"))] for row in chosen.to_dict("records")
    ]


def threshold_rows(points: pd.DataFrame, rule: str) -> list[list[str]]:
    """The cells under ("", "threshold", *HEADER[1:9]) of one rule, a row a target."""
    cells = ["threshold", *(column for name in MEASURES for column in (name, f"nested_{name}"))]
    chosen = points[points["rule"] == rule]
    return [[str(row["target"]), *(_told(row[name]) for name in cells)] for row in chosen.to_dict("records")]


def _told(value: float | None) -> str:
    return number(None if value is None or np.isnan(value) else float(value), 3)
