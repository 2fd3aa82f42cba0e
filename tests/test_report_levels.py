import numpy as np
import pytest
from tiny_reading import THRESHOLDS, TOLD, geometry

from cspine.report.frame import Frame
from cspine.report.levels import read_levels

FRAME = Frame(geometry(), (90, 60, 50), 1.0, (0.0, 0.0))


def labels(*blocks) -> np.ndarray:
    made = np.zeros(FRAME.shape, np.uint8)
    for level, planes in blocks:
        made[planes, 20:40, 10:30] = level
    return made


def test_what_is_sound_has_no_doubts_and_its_place_in_mm():
    found = read_levels(labels((1, slice(10, 20)), (2, slice(22, 32))), FRAME, TOLD, THRESHOLDS)
    assert [level.note for level in found[:2]] == ["", ""]
    assert found[0].centre_mm == pytest.approx((-5 + 19.5, 29.5, 200 - 14.5), abs=1.01)
    assert [level.decision for level in found[:2]] == ["no fracture", "fracture"]


def test_every_doubt_is_told():
    made = labels((1, slice(0, 8)), (2, slice(60, 72)), (3, slice(40, 50)), (4, slice(84, 90)))
    made[75:77, 20:25, 10:15] = 5
    notes = {level.name: level.note for level in read_levels(made, FRAME, TOLD, THRESHOLDS)}
    assert notes["C1"] == "cut off by the upper end of the scan"
    assert notes["C2"] == ""
    assert "above a higher level" in notes["C3"]
    assert notes["C4"] == "cut off by the lower end of the scan"
    assert notes["C5"].startswith("only 0.1 cm")
    assert notes["C6"] == "not found in this scan; its probability is that of levels not found"


def test_without_heads_there_are_levels_alone():
    found = read_levels(labels((1, slice(10, 20))), FRAME, None, {})
    assert {(level.probability, level.decision) for level in found} == {(None, "")}
    assert found[3].note == "not found in this scan"


def test_the_place_of_a_level_is_in_its_body_not_in_its_canal():
    ring = np.zeros(FRAME.shape, np.uint8)
    ring[10:20, 10:44, 10:34] = 4
    ring[10:20, 26:40, 14:30] = 0
    (centre,) = [level.centre_mm for level in read_levels(ring, FRAME, None, {}) if level.centre_mm]
    z, y, x = np.rint(FRAME.to_index(np.array(centre))).astype(int)
    assert ring[z, y, x] == 4
    assert 13 <= y <= 22
