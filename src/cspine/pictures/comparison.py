"""The two figures of the comparison of backbones: accuracy against training time, and the best by group folds."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from cspine.comparison import GROUP, PLAIN, finalists
from cspine.pictures.canvas import FAINT, INK, MARK, SECOND

FLOOR = "the same answer on every slice"


def draw_accuracy_and_time(rows: pd.DataFrame) -> Figure:
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
    _name_points(axis, seconds, plain["accuracy"].clip(lower=group["accuracy"]))
    axis.margins(x=0.1, y=0.15)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.set_xlabel("training time, s", color=FAINT)
    for found, colour in ((plain, MARK), (group, INK)):
        _floor(axis, found, colour)
    leak = float((plain["accuracy"] - group["accuracy"]).mean())
    axis.set_title(
        f"Accuracy of {len(plain)} backbones after {_budget(rows)}: plain minus group {100 * leak:+.1f} points",
        loc="left", color=INK, fontsize=11, fontweight="bold",
    )  # fmt: skip
    _finish(axis)
    return figure


def draw_folds(rows: pd.DataFrame) -> Figure:
    """The best of the plain split by group folds: every fold a dot, beside it mean, deviation and time."""
    figure = Figure(figsize=(8, 4.8), layout="constrained", facecolor="white")
    axis = figure.subplots()
    group = rows[rows["protocol"] == GROUP]
    best = finalists(rows)
    order = sorted(best, key=lambda name: -group.loc[group["backbone"] == name, "accuracy"].mean())
    for place, name in enumerate(order):
        found = group.loc[group["backbone"] == name, "accuracy"].to_numpy()
        spread = float(found.std(ddof=1)) if len(found) > 1 else 0.0
        axis.errorbar(place, found.mean(), spread, color=INK, marker="_", markersize=26, mew=2, capsize=6, lw=1.2)
        axis.scatter(np.full(len(found), place - 0.22), found, color=SECOND, s=26, zorder=3)
        seconds = group.loc[group["backbone"] == name, "seconds"].mean()
        told = f"{found.mean():.3f}\n{seconds:.0f} s"
        axis.text(place + 0.17, found.mean(), told, color=INK, va="center", fontsize=9)
    axis.set_xticks(range(len(order)), order)
    axis.set_xlim(-0.5, len(order) - 0.3)
    folds = group.loc[group["backbone"].isin(best), "fold"].nunique()
    held = f"{folds} group folds" if folds > 1 else "one group fold"
    title = f"The best {len(order)} of the plain split by {held}"
    axis.set_title(title, loc="left", color=INK, fontsize=11, fontweight="bold")
    _floor(axis, group[group["backbone"].isin(best)], FAINT)
    _finish(axis)
    return figure


def _budget(rows: pd.DataFrame) -> str:
    return f"one pass over about {rows['training_slices'].median():,.0f} slices"


def _floor(axis: Axes, rows: pd.DataFrame, colour: str) -> None:
    axis.axhline(rows["constant"].mean(), color=colour, ls="--", lw=1, label=FLOOR)


def _finish(axis: Axes) -> None:
    axis.set_ylabel("accuracy, mean over slices and levels", color=FAINT)
    axis.legend(frameon=False, loc="best")
    axis.grid(alpha=0.25)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _name_points(axis: Axes, seconds: pd.Series, accuracy: pd.Series) -> None:
    """Slanted names above the points, so that neighbours in time stay apart."""
    for name in seconds.index:
        place = (seconds[name], accuracy[name])
        axis.annotate(name, place, (3, 6), textcoords="offset points", rotation=40, fontsize=8, color=INK)
