"""The two ends between which a fracture head lies: one that knows how frequent fractures are, one that sees their gap.

The reader looks at the true place of every fracture and nowhere else. What it sees there is the fracture's `visibility`
(phantom/visibility.py: its contrast, blurred as the scan is, over the noise of one voxel) and unit noise; at a sound
level the noise alone. It says how probable that is under what it saw in the other folds.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from cspine.aggregate import overall
from cspine.anatomy import LEVELS
from cspine.calibrate import nested_prior, smoothed_prevalence
from cspine.metrics import CLIP
from cspine.runs import OutOfFold
from cspine.tables import STUDY, read_csv

PREVALENCE, READER = "oracle: prevalence", "oracle: reader"
COLUMNS = (STUDY, "level", "visibility")


def oracles(data: OutOfFold, fracture_file: Path, seed: int = 0) -> dict[str, np.ndarray]:
    """The predictions (n, 8) of both, the reader's only where there is a table of fractures (a phantom has one)."""
    found = {PREVALENCE: nested_prior(data.labels, data.folds)}
    if fracture_file.is_file():
        found[READER] = reader_oracle(data, level_visibility(data, read_csv(fracture_file, COLUMNS)), seed)
    return found


def level_visibility(data: OutOfFold, fractures: pd.DataFrame) -> np.ndarray:
    """(n, 7): the visibility of each level's most visible fracture; 0 where it has none."""
    greatest = fractures.groupby([STUDY, "level"])["visibility"].max()
    return greatest.unstack().reindex(index=list(data.uids), columns=list(LEVELS)).fillna(0.0).to_numpy(float)


def reader_oracle(data: OutOfFold, visibility: np.ndarray, seed: int) -> np.ndarray:
    """(n, 8) from the visibility of the levels (n, 7)."""
    seen = visibility + np.random.default_rng(seed).normal(size=visibility.shape)
    levels, truth = np.empty(visibility.shape), data.labels[:, 1:] > 0
    for fold in np.unique(data.folds):
        here, others = data.folds == fold, data.folds != fold
        known = visibility[others][truth[others]]
        rates = smoothed_prevalence(data.labels[others])[1:]
        levels[here] = _posterior(seen[here], known, rates)
    return np.array([[overall(row), *row] for row in np.clip(levels, CLIP, 1 - CLIP)])


def _posterior(seen: np.ndarray, visibilities: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """How probable a fracture is at levels (n, 7): normal noise about 0, or about one of the visibilities (k,)."""
    sound = np.exp(-(seen**2) / 2)
    broken = np.exp(-((seen[..., None] - visibilities) ** 2) / 2).mean(axis=-1)
    # Where both vanish the nearer is beyond doubt the broken one: fractures are seen far above the noise.
    total = rates * broken + (1 - rates) * sound
    return np.where(total > 0, rates * broken / np.where(total > 0, total, 1), seen > 0)
