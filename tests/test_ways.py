"""Nested means nested, for each way and for the choice among them; the table and its warning; whom to drop first."""

import numpy as np
import pytest
from simulated_runs import random_labels, random_predictions

from cspine import ways as ways_module
from cspine.blend import Blend, fit_blend, mean_blend, nested_blend
from cspine.bootstrap import loss_difference
from cspine.metrics import weighted_log_loss
from cspine.way_scores import CHOSEN, HEADER, least_valuable_first, score_ways, way_json, way_rows, way_text
from cspine.ways import BLENDS, INCUMBENT, OTHERS, Comparison, Ranks, compare_ways, lead

LABELS = random_labels(80)
FOLDS = np.arange(80) % 4
STACK = np.stack([random_predictions(LABELS, skill, seed) for seed, skill in enumerate((1.0, 0.8, 0.1))])
NAMES = ["good", "fair", "noise"]


@pytest.fixture(scope="module")
def ways() -> Comparison:
    return compare_ways(STACK, LABELS, FOLDS, NAMES)


def test_each_way_is_nested(ways: Comparison) -> None:
    assert list(ways.nested) == list(ways.in_sample) == [*BLENDS, *OTHERS]
    assert np.array_equal(ways.nested["fitted weights"], nested_blend(STACK, LABELS, FOLDS))
    assert np.array_equal(ways.in_sample["plain mean"], mean_blend(STACK, LABELS).apply(list(STACK)))


def test_no_fold_has_a_part_in_what_is_predicted_of_it_nor_in_the_choice_of_the_way(ways: Comparison) -> None:
    here = FOLDS == 2
    rng = np.random.default_rng(0)
    changed = np.where(here[:, None], rng.integers(0, 2, LABELS.shape), LABELS)
    again = compare_ways(STACK, changed, FOLDS, NAMES)
    assert again.picks[2] == ways.picks[2]
    assert np.array_equal(again.chosen[here], ways.chosen[here])
    for way in ways.nested:
        assert np.array_equal(again.nested[way][here], ways.nested[way][here]), way
        assert not np.array_equal(again.nested[way][~here], ways.nested[way][~here]), way


@pytest.mark.parametrize("sure", [1.96, -1e9, 1e9])
def test_the_choice_is_by_the_nested_loss_slowly(sure: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything fitted again for one fold, without the bookkeeping of pairs."""
    monkeypatch.setattr(ways_module, "SURE", sure)
    judged: list[np.ndarray] = []

    def lead_and_note(labels: np.ndarray, one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
        judged.append(one)
        return lead(labels, one, other)

    monkeypatch.setattr(ways_module, "lead", lead_and_note)
    ways = compare_ways(STACK, LABELS, FOLDS, NAMES)
    fold = 1
    others = fold != FOLDS
    made = {}
    for way, fit in BLENDS.items():
        made[way] = np.empty(LABELS[others].shape)
        for other in (0, 2, 3):
            rows = others & (other != FOLDS)
            fitted = fit(STACK[:, rows], LABELS[rows], NAMES)
            made[way][FOLDS[others] == other] = fitted.apply(list(STACK[:, other == FOLDS]))

    # By these predictions, and by no others, was the choice for the fold made.
    for way in set(BLENDS) - {INCUMBENT}:
        assert any(np.array_equal(made[way], table) for table in judged)

    def expected(labels: np.ndarray, tables: dict[str, np.ndarray]) -> str:
        losses = {way: weighted_log_loss(labels, tables[way], "column") for way in BLENDS}
        best = INCUMBENT
        for way in sorted(set(BLENDS) - {INCUMBENT}, key=lambda way: -losses[way]):
            if lead(labels, tables[way], tables[INCUMBENT])[1] > sure:
                best = way
        return best

    assert ways.picks[fold] == expected(LABELS[others], made)
    assert np.array_equal(ways.chosen[~others], ways.nested[ways.picks[fold]][~others])
    assert ways.way == expected(LABELS, ways.nested)
    assert (ways.way == INCUMBENT) == (sure > 0)
    assert ways.blend == BLENDS[ways.way](STACK, LABELS, NAMES)


def test_a_lead_and_its_error_are_those_of_drawn_patients() -> None:
    one, other = STACK[0], STACK[1]
    value, errors = lead(LABELS, one, other)
    drawn = loss_difference(LABELS, other, one)
    assert value == pytest.approx(drawn.value)
    assert value / errors == pytest.approx((drawn.high - drawn.low) / (2 * 1.96), rel=0.1)
    assert lead(LABELS, one, one) == (0, 0)


def test_threads_change_nothing(ways: Comparison) -> None:
    alone = compare_ways(STACK, LABELS, FOLDS, NAMES, threads=1)
    assert np.array_equal(alone.chosen, ways.chosen)
    assert all(np.array_equal(alone.nested[way], ways.nested[way]) for way in ways.nested)


def test_one_member_or_two_folds_leave_no_choice() -> None:
    one = compare_ways(STACK[:1], LABELS, FOLDS, NAMES[:1])
    assert list(one.nested) == ["fitted weights"]
    assert one.blend == fit_blend(STACK[:1], LABELS, NAMES[:1])
    assert "nothing to weigh" in way_text(one)
    two = compare_ways(STACK, LABELS, FOLDS % 2, NAMES)
    assert (two.way, set(two.picks.values())) == ("fitted weights", {"fitted weights"})
    assert "too few to choose" in way_text(two)
    with pytest.raises(ValueError, match="two folds"):
        compare_ways(STACK, LABELS, FOLDS * 0, NAMES)


def test_ranks_know_nothing_of_scale() -> None:
    fitted = Ranks.fit(STACK, LABELS)
    squeezed = STACK.copy()
    squeezed[0] = squeezed[0] ** 3 / 2
    assert np.allclose(Ranks.fit(squeezed, LABELS).apply(list(squeezed)), fitted.apply(list(STACK)))
    unseen = [np.full((1, 8), value) for value in (0.0, 1.0, 0.5)]
    assert ((fitted.apply(unseen) > 0) & (fitted.apply(unseen) < 1)).all()


def test_the_table_stands_beside_the_metric(ways: Comparison) -> None:
    scores = {score.name: score for score in score_ways(ways, LABELS)}
    assert list(scores) == [CHOSEN, *ways.nested]
    stacker = scores["stacker"]
    assert stacker.nested.value == pytest.approx(weighted_log_loss(LABELS, ways.nested["stacker"], "column"))
    assert stacker.nested.low < stacker.nested.value < stacker.nested.high
    assert stacker.above is not None
    assert stacker.above.value == pytest.approx(stacker.nested.value - scores[CHOSEN].nested.value)
    assert not stacker.portable
    assert scores["hill climbing"].portable
    assert all(len(row) == len(HEADER) for row in way_rows(list(scores.values())))
    assert set(way_json(ways, list(scores.values()))["ways"]) == set(scores)


def test_a_gap_beyond_the_interval_is_told() -> None:
    """Thirty members of noise on few studies: in-sample they look like something."""
    labels = random_labels(40, seed=5)
    noise = np.stack([random_predictions(labels, 0.0, seed) for seed in range(30)])
    found = compare_ways(noise, labels, np.arange(40) % 4, [str(k) for k in range(30)])
    doubts = [score.doubt for score in score_ways(found, labels) if score.doubt]
    assert any("fitted weights: the in-sample loss" in doubt for doubt in doubts)
    marked = [row[0] for row in way_rows(score_ways(found, labels)) if row[1].endswith("*")]
    assert "fitted weights" in marked
    assert "plain mean" not in marked
    honest = score_ways(compare_ways(STACK, LABELS, FOLDS, NAMES), LABELS)
    assert [score.doubt for score in honest if score.name in BLENDS] == [None] * 3


def test_the_least_valuable_member_goes_first() -> None:
    blend = Blend(("noise", "good", "fair"), (0.3, 0.35, 0.35), 1.0, (0.0,) * 8)
    stack = np.stack([STACK[2], STACK[0], STACK[1]])
    assert least_valuable_first(blend, stack, LABELS) == ["noise", "fair", "good"]
    # What weighs nothing costs nothing, and what is left still has a weight.
    unused = Blend((*blend.members, "unused"), (*blend.weights, 0.0), 1.0, (0.0,) * 8)
    assert least_valuable_first(unused, np.stack([*stack, STACK[0]]), LABELS)[-1] == "good"
    assert least_valuable_first(fit_blend(STACK[:1], LABELS, ["only"]), STACK[:1], LABELS) == ["only"]
