"""The two figures of the comparison of backbones: accuracy against training time, and the best by group folds."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cspine.comparison import GROUP, PLAIN, finalists
from cspine.pictures.canvas import FAINT, INK, MARK, SECOND

FLOOR = "the same answer on every slice"


def draw_accuracy_and_time(rows: pd.DataFrame, constant_accuracy: float) -> Figure:
    """Accuracy of each backbone by both protocols against the time of its training; the line between is the leak."""
    figure = Figure(figsize=(10, 6.5), layout="constrained", facecolor="white")
    axis = figure.subplots()
    first = rows.drop_duplicates(["backbone", "protocol"])
    plain, group = (first[first["protocol"] == name].set_index("backbone") for name in (PLAIN, GROUP))
    group = group.loc[plain.index]
    seconds = plain["seconds"]
    axis.vlines(seconds, group["accuracy"], plain["accuracy"], color=FAINT, lw=0.8, alpha=0.6)
    axis.scatter(seconds, plain["accuracy"], color=MARK, s=42, label="plain 80/20 split of slices", zorder=3)
    axis.scatter(
        seconds,
        group["accuracy"],
        facecolor="white",
        edgecolor=INK,
        s=38,
        label="one group fold, as many slices",
        zorder=3,
    )
    _name_points(axis, seconds, plain["accuracy"])
    axis.set_xscale("log")
    axis.set_xlabel("training time, s", color=FAINT)
    leak = float((plain["accuracy"] - group["accuracy"]).mean())
    axis.set_title(
        f"Accuracy of {len(plain)} backbones after {_budget(rows)}: the plain split is {100 * leak:+.1f} points off",
        loc="left", color=INK, fontsize=11, fontweight="bold",
    )  # fmt: skip
    _finish(axis, constant_accuracy)
    return figure


def draw_folds(rows: pd.DataFrame, constant_accuracy: float) -> Figure:
    """The best of the plain split by group folds: every fold a dot, the mean a bar with its standard deviation."""
    figure = Figure(figsize=(8, 4.8), layout="constrained", facecolor="white")
    axis = figure.subplots()
    group = rows[rows["protocol"] == GROUP]
    best = finalists(rows)
    order = sorted(best, key=lambda name: -group.loc[group["backbone"] == name, "accuracy"].mean())
    for place, name in enumerate(order):
        found = group.loc[group["backbone"] == name, "accuracy"].to_numpy()
        spread = float(found.std(ddof=1)) if len(found) > 1 else 0.0
        axis.errorbar(place, found.mean(), spread, color=INK, marker="_", markersize=26, mew=2, capsize=6, lw=1.2)
        axis.scatter(place + np.linspace(-0.12, 0.12, len(found)), found, color=SECOND, s=26, zorder=3)
        axis.text(place + 0.2, found.mean(), f"{found.mean():.3f}", color=INK, va="center", fontsize=9)
    axis.set_xticks(range(len(order)), order)
    axis.set_xlim(-0.5, len(order) - 0.3)
    folds = group.loc[group["backbone"].isin(best), "fold"].nunique()
    held = f"{folds} group folds" if folds > 1 else "one group fold"
    title = f"The best {len(order)} of the plain split by {held}"
    axis.set_title(title, loc="left", color=INK, fontsize=11, fontweight="bold")
    _finish(axis, constant_accuracy)
    return figure


def _budget(rows: pd.DataFrame) -> str:
    return f"one pass over about {rows['training_slices'].median():,.0f} slices"


def _finish(axis: Axes, constant_accuracy: float) -> None:
    axis.axhline(constant_accuracy, color=FAINT, ls="--", lw=1, label=FLOOR)
    axis.set_ylabel("accuracy, mean over slices and levels", color=FAINT)
    axis.legend(frameon=False, loc="best")
    axis.grid(alpha=0.25)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _name_points(axis: Axes, seconds: pd.Series, accuracy: pd.Series) -> None:
    """Names beside the points, alternately above and below by time so that neighbours stay apart."""
    for number, name in enumerate(seconds.sort_values().index):
        above = number % 2 == 0
        axis.annotate(
            name, (seconds[name], accuracy[name]), xytext=(0, 7 if above else -7), textcoords="offset points",
            ha="center", va="bottom" if above else "top", fontsize=8, color=INK,
        )  # fmt: skip
