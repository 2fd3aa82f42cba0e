"""How a run's folds learned, and how well it does on each target."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cspine.pictures.canvas import FAINT, INK, MARK

FULL = "full"  # the training on all data
MEASURES = {"auc": "AUC", "f1": "F1 at nested thresholds", "loss": "weighted log loss"}


def draw_curves(name: str, histories: Mapping[str, pd.DataFrame]) -> Figure:
    """Loss and rate by epoch, a line for each fold's table of `epoch`, `loss`, `rate`."""
    figure = Figure(figsize=(9, 3.6), layout="constrained", facecolor="white")
    axes = figure.subplots(1, 2)
    folds = [fold for fold in histories if fold != FULL]
    colours = dict(zip(folds, mpl.colormaps["viridis"](np.linspace(0, 0.85, max(1, len(folds)))), strict=False))
    for axis, column in zip(axes, ("loss", "rate"), strict=True):
        for fold, table in histories.items():
            style = "--" if fold == FULL else "-"
            # A single epoch makes no line.
            axis.plot(
                table["epoch"],
                table[column],
                style,
                color=colours.get(fold, FAINT),
                marker="o",
                ms=3,
                lw=1.4,
                label=fold,
            )
        axis.set_xlabel("epoch", color=FAINT)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        _finish(axis)
    axes[0].set_title(f"{name}: training loss", loc="left", color=INK, fontsize=10, parse_math=False)
    axes[1].set_title("rate at the epoch's end", loc="left", color=INK, fontsize=10)
    axes[1].ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes[0].legend(frameon=False, fontsize=8)
    return figure


def draw_scores(name: str, table: pd.DataFrame) -> Figure:
    """AUC, F1 and loss of each target beside chance and the best constant; the table is that of story.target_table."""
    figure = Figure(figsize=(11, 3.2), layout="constrained", facecolor="white")
    names = ["patient" if target == "patient_overall" else target for target in table["target"]]
    places = np.arange(len(table))
    for axis, (column, title) in zip(figure.subplots(1, 3), MEASURES.items(), strict=True):
        values = table[column].to_numpy(float)
        axis.bar(places, np.nan_to_num(values), width=0.62, color=["#0b6e99"] * (len(table) - 1) + [INK])
        for place, value in zip(places, values, strict=True):
            text = "-" if np.isnan(value) else f"{value:.2f}"
            axis.text(place, np.nan_to_num(value), text, ha="center", va="bottom", fontsize=7, color=FAINT)
        axis.set_xticks(places, names, fontsize=8)
        axis.set_title(title, loc="left", color=INK, fontsize=10)
        axis.margins(y=0.12)
        _finish(axis)
        if column != "loss":
            axis.set_ylim(0, 1.08)
        if column == "auc":
            axis.axhline(0.5, color=MARK, lw=1.2, label="chance")
        if column == "loss":
            ends = places - 0.42, places + 0.42
            axis.hlines(table["constant_loss"], *ends, color=MARK, lw=1.6, label="best constant")
        if column != "f1":
            axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0.45, 1.16))
    figure.suptitle(f"{name}, out-of-fold", x=0.005, ha="left", color=INK, fontsize=11, parse_math=False)
    return figure


def _finish(axis: Axes) -> None:
    axis.grid(axis="y", alpha=0.25)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
