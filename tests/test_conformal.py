"""Coverage on new cases, by class; the bounds by hand; who is referred."""

import numpy as np
import pytest
from simulated_runs import random_predictions

from cspine.conformal import HEADER, fit_refer, nested_answers, refer_rows


def drawn(studies: int, seed: int, skill: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    labels = (np.random.default_rng(seed).random((studies, 8)) < 0.3).astype(int)
    return labels, random_predictions(labels, skill, seed + 1000)


@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_new_cases_of_both_classes_are_covered_as_promised(coverage: float) -> None:
    covered: dict[int, list[float]] = {0: [], 1: []}
    for seed in range(60):
        labels, scores = drawn(100, seed)
        new_labels, new_scores = drawn(400, 5000 + seed)
        yes, no = fit_refer(labels, scores, coverage).possible(new_scores)
        covered[1].append(yes[new_labels == 1].mean())
        covered[0].append(no[new_labels == 0].mean())
    # At least as promised, and by at most 1 / (cases + 1) more: some 30 fractured and 70 intact ones.
    assert coverage - 0.006 < np.mean(covered[1]) < coverage + 1 / 31 + 0.006
    assert coverage - 0.006 < np.mean(covered[0]) < coverage + 1 / 71 + 0.006


def test_the_bounds_by_hand() -> None:
    scores = np.tile(np.linspace(0.1, 0.9, 9)[:, None], 8)
    labels = np.ones((9, 8), int)
    refer = fit_refer(labels, scores, 0.8)
    # Rank 8 of 9 from above: the second lowest; no intact case was ever seen, so "intact" is never ruled out.
    assert refer.fractured_from == pytest.approx(np.full(8, 0.2))
    assert np.isinf(refer.intact_to).all()
    assert refer.to_json()["C1"] == {"fractured_from": pytest.approx(0.2), "intact_to": None}
    assert np.isneginf(fit_refer(labels, scores, 0.95).fractured_from).all()  # nine cases cannot tell 95 %
    yes, no = refer.possible(np.full((1, 8), 0.15))
    assert not yes.any()
    assert no.all()


def test_nested_coverage_and_who_is_referred() -> None:
    labels, scores = drawn(2000, 1)
    folds = np.arange(2000) % 5
    yes, no = nested_answers(labels, scores, folds, 0.9)
    assert yes[labels == 1].mean() == pytest.approx(0.9, abs=0.02)
    changed = np.where((folds == 2)[:, None], 1 - labels, labels)
    assert np.array_equal(nested_answers(changed, scores, folds, 0.9)[0][folds == 2], yes[folds == 2])
    rows = refer_rows(labels, scores, folds, 0.9)
    assert [row[0] for row in rows][-1] == "patient_overall"
    assert all(len(row) == len(HEADER) for row in rows)
    referred = np.mean(yes[:, 0] == no[:, 0])
    assert rows[-1][3] == f"{referred:.3f}"
    sharper = refer_rows(*drawn(2000, 1, skill=1.5), folds, 0.9)
    assert float(sharper[-1][3]) < float(rows[-1][3])


@pytest.mark.parametrize("coverage", [0.0, 1.0, float("nan")])
def test_a_coverage_outside_is_refused(coverage: float) -> None:
    with pytest.raises(ValueError, match="within 0 and 1"):
        fit_refer(np.ones((2, 8)), np.ones((2, 8)), coverage)
