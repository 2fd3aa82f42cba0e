"""The benchmark blends what it says, in every way; no times are asserted."""

from cspine.benchmarks.blending import blend_table
from cspine.ways import BLENDS, OTHERS


def test_every_way_has_a_row_and_the_whole_a_time() -> None:
    lines = blend_table(members=3, studies=60, threads=1).splitlines()
    assert lines[0] == "3 members, 60 studies, 8 targets, 5 folds, 1 threads"
    assert [line[:18].strip() for line in lines[2:-1]] == [*BLENDS, *OTHERS]
    assert "s of CPU (wanted: under 10 s)" in lines[-1]
