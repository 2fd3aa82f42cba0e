"""report.html: the ensemble's scores and figures on one page that needs no network."""

import base64
import io
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from cspine.anatomy import LEVELS, OVERALL, TARGETS
from cspine.calibrate import metric_prior
from cspine.ensemble_text import score_rows, warnings
from cspine.ensembling import Ensemble, Entry
from cspine.metrics import accuracy, f1, sensitivity, specificity, target_losses, weighted_log_loss
from cspine.paths import PHANTOM_NAME, RSNA_NAME, atomic
from cspine.scores import number

INK, FAINT, BLEND, CONSTANT = "#1f2933", "#9aa5b1", "#0b6e99", "#b4540a"
# A fixed salt and no date: equal inputs give an equal page.
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "cspine",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.titlesize": 9,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}
DATASETS = {
    RSNA_NAME: "the training data of the RSNA 2022 Cervical Spine Fracture Detection challenge",
    PHANTOM_NAME: "a phantom, which shows that the pipeline works and says nothing of its worth on patients",
}
BINS = 10  # of a reliability curve
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Ensemble on {title}</title>
<style>
:root {{ color-scheme: light dark; --ink: #1f2933; --faint: #616e7c; --line: #d9dee4; --back: #fff; --mark: #e8f3f8; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e4e7eb; --faint: #9aa5b1; --line: #3e4c59; --back: #16191d; --mark: #1d3440; }}
}}
body {{ font: 15px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--back); max-width: 62rem;
  margin: 2.5rem auto; padding: 0 1.25rem; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.1rem; margin: 2.5rem 0 .5rem; }}
p {{ max-width: 46rem; }} .note {{ color: var(--faint); font-size: .9rem; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }}
th, td {{ padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }}
th {{ font-weight: 600; }} th:first-child, td:first-child {{ text-align: left; padding-left: .3rem; }}
tr.group th {{ text-align: center; border-bottom: 0; color: var(--faint); font-weight: 400; }}
tr.mark {{ background: var(--mark); font-weight: 600; }}
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
    labels, folds = ensemble.data.labels, np.unique(ensemble.data.folds)
    data = DATASETS.get(ensemble.dataset, f"the data set {ensemble.dataset}")
    parts = [
        "<h1>Ensemble of fracture runs</h1>",
        _paragraph(
            f"{len(labels)} studies of {data}; {int(labels[:, 0].sum())} with a fracture. All figures are out-of-fold "
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
        "<h2>Weights of the blend</h2>",
        _weight_table(ensemble),
        "<h2>Loss of each target</h2>",
        _image(draw_losses, ensemble, "Loss of each target for the members and the blend"),
        "<h2>ROC curves</h2>",
        _image(draw_roc, ensemble, "ROC curve of the blend for each target"),
        "<h2>Reliability</h2>",
        _image(draw_reliability, ensemble, "Observed frequency against predicted probability"),
        _note(
            "The loss counts positives twice, so the probabilities that minimise it are higher than frequencies: a "
            "case of frequency q is best predicted as 2q/(1+q), the solid line. For the frequency itself take p/(2-p)."
        ),
        "<h2>Thresholds</h2>",
        _threshold_table(ensemble),
        _note(
            "Chosen for the best F1. The threshold was fitted on all rows and goes with the model; the measures beside "
            "it are nested: each fold was decided at thresholds fitted on the others. A dash: there is no such case."
        ),
        "<h2>Spread over the folds</h2>",
        _image(draw_folds, ensemble, "Loss of each fold for the members and the blend"),
    ]
    return PAGE.format(title=escape(ensemble.dataset), body="\n".join(parts))


def draw_roc(ensemble: Ensemble) -> Figure:
    """One small ROC curve a target, the patient first, with the blend's nested threshold marked."""
    figure = Figure(figsize=(9, 4.9), layout="constrained")
    axes = figure.subplots(2, 4, sharex=True, sharey=True)
    for column, (axis, target) in enumerate(zip(axes.flat, TARGETS, strict=True)):
        truth, entry = ensemble.data.labels[:, column], ensemble.blended
        auc = entry.scores["targets"][target]["auc"]
        axis.plot([0, 1], [0, 1], color=FAINT, lw=0.8, ls=":")
        axis.set_title(f"{_word(target)}: AUC {number(auc, 3)}, {int(truth.sum())} positive")
        axis.set_aspect("equal")
        if auc is None:
            axis.text(0.5, 0.5, "one class only", ha="center", va="center", color=FAINT)
            continue
        for member in ensemble.members:
            axis.plot(*roc_curve(truth, member.nested[:, column])[:2], color=FAINT, lw=0.8)
        axis.plot(*roc_curve(truth, entry.nested[:, column])[:2], color=BLEND, lw=1.6)
        found = entry.nested[:, column] >= entry.cuts[:, column]
        axis.plot(1 - _known(specificity(truth, found)), _known(sensitivity(truth, found)), "o", color=BLEND, ms=5)
    figure.supxlabel("1 - specificity", fontsize=9)
    figure.supylabel("sensitivity", fontsize=9)
    _legend(figure, axes.flat[0], [("blend", BLEND, "-"), ("members", FAINT, "-"), ("at the threshold", BLEND, "o")])
    return figure


def draw_losses(ensemble: Ensemble) -> Figure:
    """Bars: the loss of each target for every member, the blend and the best constant."""
    entries, labels = (*ensemble.members, ensemble.blended), ensemble.data.labels
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axis = figure.subplots()
    width = 0.8 / len(entries)
    colours = [*mpl.colormaps["Greys"](np.linspace(0.3, 0.6, len(ensemble.members))), BLEND]
    for place, (entry, colour) in enumerate(zip(entries, colours, strict=True)):
        x = np.arange(len(TARGETS)) + (place - (len(entries) - 1) / 2) * width
        axis.bar(x, target_losses(labels, entry.nested), width * 0.92, color=colour, label=entry.name)
    best = target_losses(labels, np.tile(metric_prior(labels.mean(axis=0)), (len(labels), 1)))
    axis.hlines(best, np.arange(8) - 0.45, np.arange(8) + 0.45, color=CONSTANT, lw=1.2, label="best constant")
    axis.set_xticks(range(len(TARGETS)), [_word(target) for target in TARGETS])
    axis.set_ylabel("weighted log loss, nested")
    _name_legend(figure)
    return figure


def draw_reliability(ensemble: Ensemble) -> Figure:
    """Observed frequency in bins of equal width, for patients and for all levels together."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    nested, labels = ensemble.blended.nested, ensemble.data.labels
    line = np.linspace(0, 1, 101)
    for axis, columns, name in zip(axes, ([0], range(1, 8)), ("patients", "vertebrae"), strict=True):
        predicted, truth = nested[:, columns].ravel(), labels[:, columns].ravel()
        axis.plot(line, line / (2 - line), color=INK, lw=1, label="calibrated for the loss")
        axis.plot(line, line, color=FAINT, lw=0.8, ls=":", label="calibrated as a frequency")
        number_of_bin = np.minimum((predicted * BINS).astype(int), BINS - 1)
        bins = [number_of_bin == place for place in np.unique(number_of_bin)]
        mean, observed, count = np.array([(predicted[part].mean(), truth[part].mean(), part.sum()) for part in bins]).T
        error = np.sqrt(observed * (1 - observed) / count)
        axis.errorbar(mean, observed, error, fmt="o", color=BLEND, ms=4, lw=1, label="blend, with standard error")
        axis.set(title=name, xlabel="predicted", ylabel="observed", xlim=(-0.02, 1.02), ylim=(-0.04, 1.04))
        axis.set_aspect("equal")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def draw_folds(ensemble: Ensemble) -> Figure:
    """Points: the column loss of each fold; a bar at their mean."""
    entries = (*ensemble.members, ensemble.blended)
    figure = Figure(figsize=(9, 1.0 + 0.35 * len(entries)), layout="constrained")
    axis = figure.subplots()
    labels, folds = ensemble.data.labels, ensemble.data.folds
    for place, entry in enumerate(entries):
        losses = [_fold_loss(entry, labels, folds == fold) for fold in np.unique(folds)]
        colour = BLEND if entry is ensemble.blended else "#616e7c"
        axis.plot(losses, [place] * len(losses), "o", color=colour, ms=5, alpha=0.75)
        axis.plot([np.mean(losses)] * 2, [place - 0.28, place + 0.28], color=colour, lw=2)
    axis.set_yticks(range(len(entries)), [_plain(entry.name) for entry in entries])
    axis.set_ylim(len(entries) - 0.5, -0.5)
    axis.set_xlabel("column loss of a fold, nested; the bar is the mean of the folds")
    axis.grid(axis="x", color="#e4e7eb", lw=0.8)
    axis.set_axisbelow(True)
    return figure


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


def _threshold_table(ensemble: Ensemble) -> str:
    labels, found = ensemble.data.labels, ensemble.blended.nested >= ensemble.blended.cuts
    measures: tuple[Callable[[np.ndarray, np.ndarray], float | None], ...]
    measures = (f1, accuracy, sensitivity, specificity)
    rows = []
    for target in (*LEVELS, OVERALL):
        column = TARGETS.index(target)
        values = [measure(labels[:, column], found[:, column]) for measure in measures]
        counts = [str(int(labels[:, column].sum())), number(float(ensemble.thresholds[column]), 3)]
        rows.append([_word(target), *counts, *(number(value, 3) for value in values)])
    return _table(["", "positives", "threshold", "F1", "accuracy", "sensitivity", "specificity"], rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], top: str = "", marked: int | None = None) -> str:
    lines = [top, f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in header)}</tr>"]
    for place, row in enumerate(rows):
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row)
        lines.append(f'<tr class="mark">{cells}</tr>' if place == marked else f"<tr>{cells}</tr>")
    return '<div class="wide"><table>\n' + "\n".join(line for line in lines if line) + "\n</table></div>"


def _image(draw: Callable[[Ensemble], Figure], ensemble: Ensemble, title: str) -> str:
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        draw(ensemble).savefig(buffer, format="svg", metadata={"Date": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<p><img alt="{escape(title)}" src="data:image/svg+xml;base64,{data}"></p>'


def _legend(figure: Figure, axis: Axes, items: Sequence[tuple[str, str, str]]) -> None:
    handles = [axis.plot([], [], style, color=colour)[0] for _, colour, style in items]
    figure.legend(handles, [name for name, _, _ in items], loc="outside upper center", ncols=len(items))


def _name_legend(figure: Figure) -> None:
    """A legend of names as they are: matplotlib hides labels that begin with _ and reads $ as mathematics."""
    handles: list[Any] = [handle for axis in figure.axes for handle in (*axis.containers, *axis.collections)]
    figure.legend(handles, [_plain(str(handle.get_label())) for handle in handles], loc="outside upper center", ncols=4)


def _fold_loss(entry: Entry, labels: np.ndarray, here: np.ndarray) -> float:
    return weighted_log_loss(labels[here], entry.nested[here], "column")


def _plain(name: str) -> str:
    return name.replace("$", r"\$")


def _word(target: str) -> str:
    return "patient" if target == OVERALL else target


def _known(value: float | None) -> float:
    # Asked only where both classes are present.
    assert value is not None
    return value


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'
