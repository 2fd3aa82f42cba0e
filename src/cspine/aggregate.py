"""From slices to levels to the patient: the baseline aggregations of the method (README, phase 3)."""

from collections.abc import Sequence

import numpy as np

# A level seen over less than this is a stray detection or cut off by the scan's edge, not something to judge.
MINIMUM_MM = 2.0


def level_probabilities(
    fractured: np.ndarray,
    presence: np.ndarray,
    spacing_mm: float,
    priors: Sequence[float] | np.ndarray,
    minimum_mm: float = MINIMUM_MM,
    clearest_mm: float | None = None,
) -> np.ndarray:
    """p_j = sum_i f_ij v_ij / sum_i v_ij, float64 (levels,), always between the least and the greatest f_ij.

    `fractured` f is (slices,) or (slices, levels), `presence` v (slices, levels), `spacing_mm` the distance of the
    slices. A level seen over less than `minimum_mm` (sum_i v_ij times the spacing) gets its prior. With `clearest_mm`
    p_j is instead the mean of the highest f_ij, of so many mm of slices on which the level clearly is (0: the maximum).
    Raises ValueError for shapes that do not fit and for values that are not probabilities.
    """
    presence = np.asarray(presence, np.float64)
    fractured = np.asarray(fractured, np.float64)
    per_level = fractured[:, None] if fractured.ndim == 1 else fractured
    if presence.ndim != 2 or per_level.shape not in {(len(presence), 1), presence.shape}:
        raise ValueError(f"fractured {fractured.shape} does not fit presence {presence.shape}")
    for values, name in ((per_level, "fractured"), (presence, "presence")):
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError(f"{name} holds values that are no probabilities")
    priors = np.asarray(priors, np.float64)
    if not len(presence):
        return priors.copy()
    is_found = levels_seen(presence, spacing_mm, minimum_mm)
    # A share of the whole rather than a quotient of two sums: presences of 1e-300 would lose their products.
    weights = presence if clearest_mm is None else _clearest(per_level, presence, clearest_mm / spacing_mm)
    shares = weights / np.where(is_found, weights.sum(axis=0), 1.0)
    # Rounding may leave the mean an ulp outside the range of what it is the mean of.
    mean = np.clip((per_level * shares).sum(axis=0), per_level.min(axis=0), per_level.max(axis=0))
    return np.where(is_found, mean, priors)


def levels_seen(presence: np.ndarray, spacing_mm: float, minimum_mm: float = MINIMUM_MM) -> np.ndarray:
    """bool (levels,): those whose presence (slices, levels) amounts to at least `minimum_mm` of slices."""
    seen = presence.sum(axis=0)
    return (seen * spacing_mm >= minimum_mm) & (seen > 0)


def _clearest(per_level: np.ndarray, presence: np.ndarray, slices: float) -> np.ndarray:
    """1 for the so many highest f of each level (at least one) where its v is at least half its greatest, else 0."""
    is_clear = presence >= presence.max(axis=0) / 2
    ranked = np.argsort(np.where(is_clear, -per_level, np.inf), axis=0, kind="stable")
    chosen = np.zeros(presence.shape)
    np.put_along_axis(chosen, ranked[: max(1, round(slices))], 1.0, axis=0)
    return chosen * is_clear


def overall(levels: np.ndarray) -> float:
    """1 - prod_j (1 - p_j): at least one level is fractured, were the levels independent. Never below any p_j."""
    levels = np.asarray(levels, np.float64)
    return float(max(1 - np.prod(1 - levels), levels.max()))
