"""Time to blend as many runs as a large team has: every way to do it, nested by fold, and the choice among them.

The runs are made up: logits of a common part, as members of one team agree, and a part of their own.
"""

import numpy as np
from scipy.special import expit

from cspine.benchmarks.cost import Cost, cost_of
from cspine.metrics import weighted_log_loss
from cspine.ways import BLENDS, OTHERS, Comparison, compare_ways

MEMBERS, STUDIES, FOLDS = 31, 2019, 5
# Of C1..C7 in the 2,019 studies of RSNA.
RATES = np.array([146, 285, 73, 108, 162, 277, 393]) / STUDIES
LIMIT_S = 10.0


def made_up_runs(members: int, studies: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities (members, n, 8), labels (n, 8) and folds (n,)."""
    rng = np.random.default_rng(seed)
    levels = rng.random((studies, 7)) < RATES
    labels = np.column_stack([levels.any(axis=1), levels]).astype(int)
    common = rng.normal(size=labels.shape)
    skills = rng.uniform(0.3, 1.2, members)
    logits = [skill * (2 * labels - 1) + common + rng.normal(size=labels.shape) - 1 for skill in skills]
    return expit(np.stack(logits)), labels, np.arange(studies) % FOLDS


def blend_table(members: int = MEMBERS, studies: int = STUDIES, threads: int = 2) -> str:
    """Seconds of the whole comparison and of each way's fit on all rows, and what the ways score."""
    stack, labels, folds = made_up_runs(members, studies)
    names = [str(place) for place in range(members)]
    # Compiled before anything is timed, as it is for everyone but the first who runs it.
    compare_ways(stack[:2, :60], labels[:60], folds[:60], names[:2], threads)
    found: list[Comparison] = []
    whole = cost_of(lambda: found.append(compare_ways(stack, labels, folds, names, threads)))
    ways = found[0]
    lines = [
        f"{members} members, {studies} studies, 8 targets, {FOLDS} folds, {threads} threads",
        f"{'':18} {'one fit, s':>10} {'CPU s':>7} {'in-sample':>10} {'nested':>8}",
    ]
    for way in ways.nested:
        cost = _fit_cost(way, stack, labels, names)
        losses = (weighted_log_loss(labels, table[way], "column") for table in (ways.in_sample, ways.nested))
        told = " ".join(f"{loss:>9.4f}" for loss in losses)
        lines.append(f"{way:18} {cost.wall_s:>10.2f} {cost.cpu_s:>7.2f}  {told}")
    folded = f"{len(ways.nested)} ways fitted on all rows and without each fold, {len(BLENDS)} without each two"
    lines.append(f"{folded}: {whole.wall_s:.1f} s, {whole.cpu_s:.1f} s of CPU (wanted: under {LIMIT_S:.0f} s)")
    return "\n".join(lines)


def _fit_cost(way: str, stack: np.ndarray, labels: np.ndarray, names: list[str]) -> Cost:
    if way in BLENDS:
        return cost_of(lambda: BLENDS[way](stack, labels, names))
    return cost_of(lambda: OTHERS[way](stack, labels))
