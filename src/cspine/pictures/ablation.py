"""The figure of the ablation: every switch against the baseline, the best on top."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cspine.ablation import BASELINE, effects
from cspine.pictures.canvas import FAINT, INK, MARK, SECOND


def draw_ablation(rows: pd.DataFrame) -> Figure:
    """Differences in points: a small dot for each fold and seed, mean and deviation over them; the band is the baseline
    by seeds alone."""
    table = effects(rows)
    band = 100 * table.loc[BASELINE, "seeds_sd"]
    switches = table.drop(index=BASELINE).iloc[::-1]
    figure = Figure(figsize=(9, 1.6 + 0.3 * len(switches)), layout="constrained", facecolor="white")
    axis = figure.subplots()
    axis.axvspan(-band, band, color=FAINT, alpha=0.15, lw=0, label="baseline, deviation by seeds alone")
    axis.axvline(0, color=FAINT, lw=1)
    accuracy = rows.pivot(index=["fold", "seed"], columns="switch", values="accuracy")
    for place, name in enumerate(switches.index):
        pairs = 100 * (accuracy[name] - accuracy[BASELINE]).to_numpy()
        axis.scatter(pairs, np.full(len(pairs), place), color=SECOND, s=14, lw=0, label=_once(place, "fold and seed"))
    axis.errorbar(
        100 * switches["difference"], range(len(switches)), xerr=100 * switches["difference_sd"],
        color=INK, marker="o", markerfacecolor=MARK, ls="none", ms=7, capsize=3, lw=1.2, label="mean and deviation",
    )  # fmt: skip
    axis.set_yticks(range(len(switches)), switches.index)
    axis.set_ylim(-0.7, len(switches) - 0.3)
    axis.set_xlabel("accuracy minus the baseline's, points (mean over slices and levels)", color=FAINT)
    axis.set_title(_title(rows, table), loc="left", color=INK, fontsize=11, fontweight="bold")
    axis.grid(alpha=0.25, axis="x")
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    return figure


def _once(place: int, label: str) -> str | None:
    return label if place == 0 else None


def _title(rows: pd.DataFrame, table: pd.DataFrame) -> str:
    folds, seeds = rows["fold"].nunique(), rows["seed"].nunique()
    held = f"{folds} group folds" if folds > 1 else "one group fold"
    return f"Each switch against the baseline ({100 * table.loc[BASELINE, 'accuracy']:.1f} %): {held}, {seeds} seeds"
