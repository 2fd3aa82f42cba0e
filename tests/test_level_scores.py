"""Errors of levels in mm, with and without knowledge of their order."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cspine.anatomy import LEVELS
from cspine.level_scores import largest_runs, level_errors, level_scores
from cspine.tables import STUDY, TRUTH


def table_of(truth: np.ndarray, found: np.ndarray, spacing_mm: float, uid: str = "a") -> pd.DataFrame:
    table = pd.DataFrame(found.astype(float), columns=list(LEVELS))
    table[list(TRUTH)] = truth.astype(float)
    table.insert(0, STUDY, uid)
    table.insert(1, "z_mm", -spacing_mm * np.arange(len(table)))
    return table


def staircase(slices: int = 90, shift: int = 0) -> np.ndarray:
    """Seven levels of 10 slices each after 10 empty ones, moved down by `shift` slices."""
    truth = np.zeros((slices, 7), bool)
    for level in range(7):
        truth[10 + 10 * level + shift : 20 + 10 * level + shift, level] = True
    return truth


@given(st.integers(-5, 5), st.floats(0.3, 3.0))
def test_a_shift_is_measured_in_mm_with_its_sign(shift: int, spacing_mm: float) -> None:
    errors = level_errors(table_of(staircase(), staircase(shift=shift), spacing_mm))
    assert len(errors) == 7
    for name in ("top_mm", "bottom_mm", "centre_mm"):
        np.testing.assert_allclose(errors[name], -shift * spacing_mm, atol=1e-9)
    scores = level_scores(errors)
    assert scores["centre_mm"] == pytest.approx(abs(shift) * spacing_mm)
    assert scores["within_5_mm"] == float(abs(shift) * spacing_mm <= 5)


def test_levels_not_found_count_as_missed_and_cut_ones_are_left_out() -> None:
    truth, found = staircase(), staircase()
    found[:, 3] = False
    truth[:10, 0] = True  # C1 reaches the first slice: cut off
    errors = level_errors(table_of(truth, found, 1.0))
    assert list(errors["level"]) == list(LEVELS[1:])
    scores = level_scores(errors)
    assert scores["within_20_mm"] == pytest.approx(5 / 6)
    assert scores["centre_mm"] == 0
    assert level_scores(errors[:0]) == {}


def test_the_longest_run_is_taken_not_the_stray_slices() -> None:
    found = staircase().astype(float)
    found[85:87, 0] = 0.9
    assert np.array_equal(largest_runs(found), staircase())
    # Without that, the stray slices would stretch C1 over the whole neck.
    assert abs(level_errors(table_of(staircase(), found, 1.0))["bottom_mm"]).max() == 0


def test_studies_are_sorted_by_z_before_they_are_measured() -> None:
    whole = pd.concat([table_of(staircase(), staircase(), 1.0), table_of(staircase(), staircase(shift=2), 1.0, "b")])
    errors = level_errors(whole.sample(frac=1, random_state=0))
    assert errors.groupby(STUDY)["centre_mm"].mean().to_dict() == {"a": 0.0, "b": -2.0}
