"""report.html: the ensemble's scores and figures on one page that needs no network."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import numpy as np

from cspine import calibrations, conformal, operating, way_scores
from cspine.anatomy import OVERALL
from cspine.ensemble_text import score_rows, warnings
from cspine.ensembling import Ensemble
from cspine.paths import PHANTOM_NAME, RSNA_NAME, atomic
from cspine.scorecard_figures import draw_folds, draw_losses, draw_precision, draw_reliability, draw_roc, image, word
from cspine.scorecard_slider import slider_html
from cspine.thresholds import usual_rules

DATASETS = {
    RSNA_NAME: "the training data of the RSNA 2022 Cervical Spine Fracture Detection challenge",
    PHANTOM_NAME: "a phantom, which shows that the pipeline works and says nothing of its worth on patients",
}
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>Ensemble on {title}</title>
<style>
:root {{ color-scheme: light dark; --ink: #1f2933; --faint: #616e7c; --line: #d9dee4; --back: #fff; --mark: #e8f3f8; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e4e7eb; --faint: #9aa5b1; --line: #3e4c59; --back: #16191d; --mark: #1d3440; }}
}}
body {{ font: 15px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--back); max-width: 66rem;
  margin: 2.5rem auto; padding: 0 1.25rem; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.15rem; margin: 2.5rem 0 .5rem; }} h3 {{ font-size: .95rem; }}
p {{ max-width: 46rem; }} .note {{ color: var(--faint); font-size: .9rem; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }}
th, td {{ padding: .3rem .55rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }}
th {{ font-weight: 600; }} th:first-child, td:first-child {{ text-align: left; padding-left: .3rem; }}
tr.group th {{ text-align: center; border-bottom: 0; color: var(--faint); font-weight: 400; }}
tr.mark {{ background: var(--mark); font-weight: 600; }}
.panel {{ border: 1px solid var(--line); border-radius: 6px; padding: .3rem 1rem;
  background: var(--back); }}
.panel p {{ max-width: none; margin: .6rem 0; }} .panel label {{ margin-right: 1.2rem; white-space: nowrap; }}
.panel select, .panel input, .panel button {{ font: inherit; }} #prevalence {{ width: 6.5rem; }}
.slide {{ display: flex; align-items: center; gap: .6rem; }} #threshold {{ flex: 1; }}
.figures {{ display: flex; flex-wrap: wrap; gap: .6rem 2rem; font-variant-numeric: tabular-nums; }}
.figures b {{ display: block; font-size: 1.35rem; }} .figures span {{ color: var(--faint); font-size: .85rem; }}
img {{ max-width: 100%; height: auto; background: #fff; border-radius: 6px; }}
</style></head><body>
{body}
</body></html>
"""


def write_report(ensemble: Ensemble, file: Path) -> Path:
    """Write the page; the file."""
    with atomic(file) as temporary:
        temporary.write_text(report_html(ensemble), encoding="utf-8")
    return file


def report_html(ensemble: Ensemble) -> str:
    """The page: tables as HTML, figures as embedded SVG, names escaped."""
    data, options = ensemble.data, ensemble.options
    labels, folds = data.labels, np.unique(data.folds)
    about = DATASETS.get(ensemble.dataset, f"the data set {ensemble.dataset}")
    parts = [
        "<h1>Ensemble of fracture runs</h1>",
        _paragraph(
            f"{len(labels)} studies of {about}; {int(labels[:, 0].sum())} with a fracture. All figures are out-of-fold "
            f"and nested: calibration, weights and thresholds were fitted on {len(folds) - 1} of {len(folds)} folds "
            "and scored on the one left out. Only the columns raw and in-sample are not."
        ),
        *(_paragraph(f"Warning: {doubt}.") for doubt in warnings(ensemble)),
        "<h2>Scores</h2>",
        _score_table(ensemble),
        _note(
            "Loss is the competition's weighted log loss, lower is better. Raw: as the run predicted; in-sample: "
            "calibrated on the rows it is scored on. The constants predict the same for every study and know these "
            "rows' prevalence q; 2q/(1+q) is the best constant for a loss that counts positives twice. The prior "
            "is that constant fitted on the other folds: what a member must beat to be worth something. "
            "The AUC of vertebrae is the mean over the levels."
        ),
        "<h2>Ways to blend</h2>",
        _table(way_scores.HEADER, way_scores.way_rows(ensemble.way_scores), marked=0),
        _note(
            "Column loss. Low and high: the 95 % interval, patients drawn again; an asterisk marks an in-sample loss "
            "below it. As chosen: each fold predicted by the way that the rule took on the others. The blend's way is "
            f"{way_scores.way_text(ensemble.ways)}."
        ),
        "<h2>Weights of the blend</h2>",
        _weight_table(ensemble),
        "<h2>Loss of each target</h2>",
        image(draw_losses, ensemble, "Loss of each target for the members and the blend"),
        "<h2>ROC curves</h2>",
        image(draw_roc, ensemble, "ROC curve of the blend for each target"),
        "<h2>Precision and sensitivity</h2>",
        image(draw_precision, ensemble, "Precision over sensitivity of the blend for each target"),
        "<h2>Is a probability a frequency?</h2>",
        image(draw_reliability, ensemble, "Frequency seen against frequency told"),
        _calibration_table(ensemble),
        _note(
            "The loss counts positives twice, so the probabilities that minimise it are higher than frequencies: a "
            "case of frequency q is best predicted as 2q/(1+q). All of this is about p/(2-p), the frequency itself, "
            "and calibrations of it fitted on the other folds. ECE is the expected calibration error in bins of as "
            "many cases each; here every label counts alike."
        ),
        "<h2>Thresholds</h2>",
        slider_html(ensemble),
        _note(
            "Counted on the nested predictions of these studies. A threshold that was chosen by looking at them, here "
            "or by a rule, is in-sample; the tables hold what each rule gives when fitted on the other folds. PPV and "
            "NPV follow from sensitivity and specificity at the prevalence above, by Bayes."
        ),
        f"<h3>The patient, by every rule</h3>{_operating_table(ensemble, OVERALL)}",
        f"<h3>All vertebrae, by every rule</h3>{_operating_table(ensemble, operating.VERTEBRAE)}",
        f"<h3>Every target by the rule {escape(options.rule)}</h3>",
        _threshold_table(ensemble),
        _note(
            "The threshold is fitted on all rows and goes with the model. Beside each measure on those rows stands the "
            "nested one: each fold decided at thresholds fitted on the others. A dash: there is no such case."
        ),
        "<h2>Whom to refer</h2>",
        _refer_table(ensemble),
        _note(
            f"Answers that hold the truth for {options.coverage:g} of the fractured and of the intact, whatever the "
            "model is (conformal prediction by class), checked on held-out folds. Where both answers are possible, or "
            "neither, the case is referred to a radiologist; the last columns are the bounds of p fitted on all rows."
        ),
        "<h2>Spread over the folds</h2>",
        image(draw_folds, ensemble, "Loss of each fold for the members and the blend"),
    ]
    return PAGE.format(title=escape(ensemble.dataset), body="\n".join(parts))


def _score_table(ensemble: Ensemble) -> str:
    groups = (("", 1), ("column loss", 3), ("nested loss", 2), ("patients", 3), ("vertebrae", 3))
    top = "".join(f'<th colspan="{span}">{name}</th>' for name, span in groups)
    header = ["", "raw", "in-sample", "nested", "row", "global", *["AUC", "accuracy", "F1"] * 2]
    rows = score_rows(ensemble)
    return _table(header, rows, top=f'<tr class="group">{top}</tr>', marked=len(rows) - 1)


def _weight_table(ensemble: Ensemble) -> str:
    blend = ensemble.blend
    rows = [[name, f"{weight:.3f}"] for name, weight in zip(blend.members, blend.weights, strict=True)]
    return _table(["", "weight"], [*rows, ["scale of the mean logit", f"{blend.scale:.3f}"]])


def _calibration_table(ensemble: Ensemble) -> str:
    groups = '<tr class="group"><th></th><th colspan="5">patients</th><th colspan="5">vertebrae</th></tr>'
    rows = calibrations.calibration_rows(ensemble.blended.nested, ensemble.data.labels, ensemble.data.folds)
    return _table(calibrations.HEADER, rows, top=groups)


def _operating_table(ensemble: Ensemble, target: str) -> str:
    rows = operating.operating_rows(ensemble.points, target)
    marked = usual_rules(ensemble.options.rule).index(ensemble.options.rule)
    if target == OVERALL:
        return _table(operating.HEADER, rows, marked=marked)
    return _table(operating.HEADER[:-2], [row[:-2] for row in rows], marked=marked)


def _threshold_table(ensemble: Ensemble) -> str:
    rows = operating.threshold_rows(ensemble.points, ensemble.options.rule)
    return _table(("", "threshold", *operating.HEADER[1:9]), [[word(row[0]), *row[1:]] for row in rows])


def _refer_table(ensemble: Ensemble) -> str:
    data, coverage = ensemble.data, ensemble.options.coverage
    rows = conformal.refer_rows(data.labels, ensemble.blended.nested, data.folds, coverage)
    return _table(conformal.HEADER, [[word(row[0]), *row[1:]] for row in rows], marked=len(rows) - 1)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], top: str = "", marked: int | None = None) -> str:
    lines = [top, f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in header)}</tr>"]
    for place, row in enumerate(rows):
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row)
        lines.append(f'<tr class="mark">{cells}</tr>' if place == marked else f"<tr>{cells}</tr>")
    return '<div class="wide"><table>\n' + "\n".join(line for line in lines if line) + "\n</table></div>"


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'
