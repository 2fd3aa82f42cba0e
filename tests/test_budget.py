"""Views go first, then members in their order, and only where that makes studies faster."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cspine.budget import MARGIN, Budget, Plan, Runs

# a is the least valuable member, c the most; a and b read v, c reads w.
READS = {"v": (), "w": (), "a": ("v",), "b": ("v",), "c": ("w",)}
RUNS = Runs(READS, ("a", "b", "c"), frozenset({"b"}))
COSTS = {"v": 4.0, "w": 1.0, "a": 2.0, "b": 6.0, "c": 3.0}


def measured(runs: Runs = RUNS, reading_s: float = 1.0, plan: Plan | None = None, **others: int) -> Budget:
    budget = Budget(runs, **others)
    budget.observe(dict.fromkeys(COSTS, 1000.0), 1000.0, Plan())  # the first, which compiles
    for _ in range(3):
        budget.observe(COSTS, reading_s, plan or Plan())
    return budget


def test_the_plans_from_best_to_last() -> None:
    none = ()
    assert RUNS.plans() == [Plan(), Plan(False, none), Plan(False, ("a",)), Plan(False, ("a", "b"))]
    assert Runs(READS, ("a", "b")).plans() == [Plan(), Plan(True, ("a",))]


def test_a_vertebra_run_goes_with_the_last_member_that_reads_it() -> None:
    assert RUNS.needed(Plan(False, ("a",))) == {"b", "c", "v", "w"}
    assert RUNS.needed(Plan(False, ("a", "b"))) == {"c", "w"}


@pytest.mark.parametrize(
    ("study_s", "plan"),
    [
        (16, Plan()),
        (15.9, Plan(False)),
        (13, Plan(False)),
        (12.9, Plan(False, ("a",))),
        (10.9, Plan(False, ("a", "b"))),
    ],
)
def test_the_first_plan_that_is_fast_enough(study_s: float, plan: Plan) -> None:
    assert measured().plan(10, 10 * study_s * MARGIN + 1e-6) == plan


def test_without_measurements_and_without_time() -> None:
    assert Budget(RUNS).plan(1000, 1.0) == Plan()
    assert measured().plan(1000, -5.0) == Plan(False, ("a", "b"))


def test_nothing_is_dropped_while_reading_is_what_takes_long() -> None:
    # 20 s to read, by one process: no plan is in time, and all members are done before the next study is there.
    assert measured(reading_s=20.0).plan(100, 10.0) == Plan()
    # By two processes 11 s: what brings members below that is dropped, and nothing more.
    assert measured(reading_s=22.0, readers=2).plan(100, 10.0) == Plan(False, ("a",))


def test_two_devices_do_twice_as_much() -> None:
    assert measured(devices=2).study_s(Plan()) == 8.0


def test_costs_measured_without_views_count_double_with_them() -> None:
    budget = measured(plan=Plan(views=False))
    assert budget.study_s(Plan()) - budget.study_s(Plan(views=False)) == 6.0


@given(st.floats(0.01, 40), st.integers(1, 2000))
def test_less_time_never_means_a_dearer_plan(study_s: float, studies: int) -> None:
    budget = measured(reading_s=0.0)
    short, long = (budget.plan(studies, factor * study_s * studies) for factor in (1, 2))
    assert budget.study_s(short) <= budget.study_s(long)
