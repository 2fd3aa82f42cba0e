"""The figures of report.html."""

import base64
import io
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_curve

from cspine.anatomy import OVERALL, TARGETS
from cspine.calibrate import metric_prior
from cspine.calibrations import CALIBRATIONS, frequency, nested_calibration, reliability
from cspine.ensembling import Ensemble, Entry
from cspine.metrics import sensitivity, specificity, target_losses, weighted_log_loss
from cspine.scores import number
from cspine.thresholds import nested_thresholds

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


def image(draw: Callable[[Ensemble], Figure], ensemble: Ensemble, title: str) -> str:
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        draw(ensemble).savefig(buffer, format="svg", metadata={"Date": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<div class="wide"><img alt="{escape(title)}" src="data:image/svg+xml;base64,{data}"></div>'


def draw_roc(ensemble: Ensemble) -> Figure:
    """One small ROC curve a target, the patient first, with the blend's nested threshold marked."""
    figure = Figure(figsize=(9, 5.2), layout="constrained")
    axes = figure.subplots(2, 4, sharex=True, sharey=True)
    cuts = _cuts(ensemble)
    for column, (axis, target) in enumerate(zip(axes.flat, TARGETS, strict=True)):
        truth, entry = ensemble.data.labels[:, column], ensemble.blended
        auc = entry.scores["targets"][target]["auc"]
        axis.plot([0, 1], [0, 1], color=FAINT, lw=0.8, ls=":")
        axis.set_title(f"{word(target)}: AUC {number(auc, 3)}, {int(truth.sum())} positive")
        axis.set(aspect="equal", xticks=[0, 0.5, 1])
        if auc is None:
            axis.text(0.5, 0.5, "one class only", ha="center", va="center", color=FAINT)
            continue
        for member in ensemble.members:
            axis.plot(*roc_curve(truth, member.nested[:, column])[:2], color=FAINT, lw=0.8)
        axis.plot(*roc_curve(truth, entry.nested[:, column])[:2], color=BLEND, lw=1.6)
        found = entry.nested[:, column] >= cuts[:, column]
        axis.plot(1 - _known(specificity(truth, found)), _known(sensitivity(truth, found)), "o", color=BLEND, ms=5)
    figure.supxlabel("1 - specificity", fontsize=9)
    figure.supylabel("sensitivity", fontsize=9)
    _legend(figure, axes.flat[0], [("blend", BLEND, "-"), ("members", FAINT, "-"), ("at the threshold", BLEND, "o")])
    return figure


def draw_precision(ensemble: Ensemble) -> Figure:
    """Precision over sensitivity, one small curve a target, with the blend's nested threshold marked."""
    figure = Figure(figsize=(9, 5.2), layout="constrained")
    axes = figure.subplots(2, 4, sharex=True, sharey=True)
    cuts = _cuts(ensemble)
    for column, (axis, target) in enumerate(zip(axes.flat, TARGETS, strict=True)):
        truth, nested = ensemble.data.labels[:, column], ensemble.blended.nested[:, column]
        axis.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xticks=[0, 0.5, 1])
        axis.set_aspect("equal")
        axis.axhline(truth.mean(), color=FAINT, lw=0.8, ls=":")
        if not truth.any():
            axis.set_title(f"{word(target)}: AP -")
            axis.text(0.5, 0.5, "no positive", ha="center", va="center", color=FAINT)
            continue
        axis.set_title(f"{word(target)}: AP {average_precision_score(truth, nested):.3f}, chance {truth.mean():.3f}")
        for member in ensemble.members:
            _draw_steps(axis, truth, member.nested[:, column], FAINT, 0.8)
        _draw_steps(axis, truth, nested, BLEND, 1.6)
        found = nested >= cuts[:, column]
        if found.any():
            axis.plot(_known(sensitivity(truth, found)), truth[found].mean(), "o", color=BLEND, ms=5)
    figure.supxlabel("sensitivity", fontsize=9)
    figure.supylabel("precision (PPV in these data)", fontsize=9)
    _legend(figure, axes.flat[0], [("blend", BLEND, "-"), ("members", FAINT, "-"), ("at the threshold", BLEND, "o")])
    return figure


def _draw_steps(axis: Axes, truth: np.ndarray, scores: np.ndarray, colour: str, width: float) -> None:
    precision, recall, _ = precision_recall_curve(truth, scores)
    # Where nothing is found there is no curve, only false alarms one after the other.
    found = recall > 0
    axis.step(recall[found], precision[found], where="post", color=colour, lw=width)


def _cuts(ensemble: Ensemble) -> np.ndarray:
    """(n, 8) nested thresholds of the blend by the rule asked for."""
    data = ensemble.data
    return nested_thresholds(data.labels, ensemble.blended.nested, data.folds, ensemble.options.rule)


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
    axis.set_xticks(range(len(TARGETS)), [word(target) for target in TARGETS])
    axis.set_ylabel("weighted log loss, nested")
    _name_legend(figure)
    return figure


def draw_reliability(ensemble: Ensemble) -> Figure:
    """Frequency seen over frequency told, in bins of as many cases each, as blended and calibrated by other folds."""
    figure = Figure(figsize=(9, 4.4), layout="constrained")
    axes = figure.subplots(1, 2)
    data, told = ensemble.data, frequency(ensemble.blended.nested)
    colours = dict(zip(CALIBRATIONS, (BLEND, CONSTANT, "#5b7c3a", FAINT), strict=True))
    for axis, columns, name in zip(axes, (slice(0, 1), slice(1, None)), ("patients", "vertebrae"), strict=True):
        axis.plot([0, 1], [0, 1], color=INK, lw=0.8, ls=":")
        end = 0.0
        for way, colour in colours.items():
            made = nested_calibration(way, told, data.labels, data.folds)[:, columns]
            mean, seen, count = reliability(made, data.labels[:, columns])
            end = max(end, *mean, *seen)
            if way == "as blended":
                error = np.sqrt(seen * (1 - seen) / count)
                axis.errorbar(mean, seen, error, fmt="o-", color=colour, ms=4, lw=1.2, label=f"{way}, standard error")
            else:
                axis.plot(mean, seen, ".-", color=colour, ms=4, lw=0.9, label=way)
        limit = min(1.0, 1.08 * end)
        axis.set(title=name, xlabel="told", ylabel="seen", xlim=(0, limit), ylim=(0, limit))
        axis.set_aspect("equal")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
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


def _known(value: float | None) -> float:
    # Asked only where both classes are present.
    assert value is not None
    return value


def word(target: str) -> str:
    return "patient" if target == OVERALL else target
