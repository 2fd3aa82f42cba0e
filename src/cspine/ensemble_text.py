"""What ensemble.py prints: members and blend, ways to blend, operating points, calibration, whom to refer."""

from typing import Any

import numpy as np

from cspine import calibrations, conformal, operating
from cspine.anatomy import LEVELS, OVERALL
from cspine.blend import Blend
from cspine.ensembling import Ensemble, Entry
from cspine.scores import number, text_table
from cspine.way_scores import HEADER, way_rows, way_text


def ensemble_text(ensemble: Ensemble) -> str:
    """In-sample and nested scores of every member and of the blend, for a terminal."""
    header = ["", "raw", "in-sample", "nested", "row", "global", "AUC", "acc.", "F1", "AUC", "acc.", "F1"]
    weights = ", ".join(f"{weight:.3f} {name}" for name, weight in _weights(ensemble.blend))
    return "\n".join(
        [
            f"{len(ensemble.data.labels)} studies of {ensemble.dataset}, {len(np.unique(ensemble.data.folds))} folds",
            text_table(header, score_rows(ensemble)),
            "  raw, in-sample, nested: the column loss as predicted, calibrated on the rows it is scored on, and",
            "  calibrated on the other folds. What follows is nested: row and global loss, then AUC, accuracy and F1",
            "  of patients, and of vertebrae (mean AUC of the levels). The constants know these rows' prevalence,",
            "  the prior is the best constant of the other folds: a member must beat it to be worth something.",
            "",
            "ways to blend",
            text_table(HEADER, way_rows(ensemble.way_scores)),
            "  Column loss; low and high: the 95 % interval, patients drawn again. As chosen: each fold by the way",
            "  that the rule took on the others, so that choosing flatters nothing; it is the row `blend` above.",
            "  *: below the interval of the nested loss, so the way has learnt these rows by heart.",
            f"blend: {way_text(ensemble.ways)}",
            f"  {weights}; scale {ensemble.blend.scale:.3f}",
            *(f"warning: {doubt}" for doubt in warnings(ensemble)),
            *_threshold_lines(ensemble),
            *_calibration_lines(ensemble),
        ]
    )


def _threshold_lines(ensemble: Ensemble) -> list[str]:
    options, lines = ensemble.options, []
    for target, name in ((OVERALL, "patients"), (operating.VERTEBRAE, operating.VERTEBRAE)):
        lines += ["", f"thresholds of the blend, {name}"]
        lines.append(text_table(operating.HEADER, operating.operating_rows(ensemble.points, target)))
    return [
        *lines,
        "  Each measure in-sample, then nested: each fold decided at thresholds fitted on the others. PPV and NPV at a",
        f"  prevalence of {options.prevalence:g}. The thresholds of every level and rule are in thresholds.csv.",
        "",
        f"thresholds in blend.json, by the rule {options.rule}",
        text_table(("", "threshold", *operating.HEADER[1:9]), operating.threshold_rows(ensemble.points, options.rule)),
    ]


def _calibration_lines(ensemble: Ensemble) -> list[str]:
    data, nested, coverage = ensemble.data, ensemble.blended.nested, ensemble.options.coverage
    return [
        "",
        "calibration of p/(2-p) as a frequency: patients, then vertebrae",
        text_table(calibrations.HEADER, calibrations.calibration_rows(nested, data.labels, data.folds)),
        "  Log loss and expected calibration error in-sample and nested, Brier score nested; every label counts alike.",
        "",
        f"refer to a radiologist, coverage {coverage:g}, on held-out folds",
        text_table(conformal.HEADER, conformal.refer_rows(data.labels, nested, data.folds, coverage)),
        "  Of p from `fractured from` up, a fracture is possible; up to `intact to`, none. Both or neither: refer.",
    ]


def warnings(ensemble: Ensemble) -> list[str]:
    """What to know before trusting the blend, if there is anything."""
    doubts = [doubt] if (doubt := ensemble.way_scores[0].doubt) else []
    if ensemble.blended.scores["loss"]["column"] >= ensemble.prior["column"]:
        doubts.append(
            "no member tells fractures apart on its held-out folds: the blend is no better than the prior of the other "
            "folds. Its AUC may fall below one half, because a fold with many fractures leaves few to fit its prior on"
        )
    return doubts


def score_rows(ensemble: Ensemble) -> list[list[str]]:
    """The cells of the score table: name; raw, in-sample, nested column loss; nested row and global loss; AUC, accuracy
    and F1 of patients; mean AUC, accuracy and F1 of vertebrae. The constants first, the blend last.
    """
    rows = [
        [f"constant {name}", number(loss["column"]), "", "", number(loss["row"]), number(loss["global"]), *[""] * 6]
        for name, loss in ensemble.oracles.items()
    ]
    prior = ensemble.prior
    rows.append(["prior", "", "", number(prior["column"]), number(prior["row"]), number(prior["global"]), *[""] * 6])
    return rows + [_row(entry) for entry in (*ensemble.members, ensemble.blended)]


def mean_level_auc(scores: dict[str, Any]) -> float | None:
    """The mean AUC of the levels that have both classes."""
    known = [scores["targets"][level]["auc"] for level in LEVELS if scores["targets"][level]["auc"] is not None]
    return float(np.mean(known)) if known else None


def _row(entry: Entry) -> list[str]:
    scores = entry.scores
    losses = [entry.raw, entry.fitted, *(scores["loss"][name] for name in ("column", "row", "global"))]
    patient, vertebra = scores["patient_level"], scores["vertebra_level"]
    decided = [
        *(scores["targets"][OVERALL]["auc"], patient["accuracy"], patient["f1"]),
        *(mean_level_auc(scores), vertebra["accuracy"], vertebra["f1"]),
    ]
    return [entry.name, *(number(value) for value in losses), *(number(value, 3) for value in decided)]


def _weights(blend: Blend) -> list[tuple[str, float]]:
    return sorted(zip(blend.members, blend.weights, strict=True), key=lambda pair: (-pair[1], pair[0]))
