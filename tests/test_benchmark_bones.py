from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_fracture_sequence import Levels

from cspine.benchmarks.bones import bones_table, places_away_mm, process_shares
from cspine.config import Config, load
from cspine.data.cache import open_study
from cspine.data.geometry import Geometry
from cspine.data.grown_map import fine_grid, map_of_labels
from cspine.errors import UserError
from cspine.level_maps import level_map
from cspine.report.frame import Frame


def frame(backwards: bool = True) -> Frame:
    """30 planes of 60 x 30 voxels of 1 mm whose rows run backwards, or, of a patient who lies prone, forwards."""
    way = 1.0 if backwards else -1.0
    positions = np.array([[0.0, 0.0, -float(z)] for z in range(30)])
    place = Geometry(np.arange(30), positions, np.array([way, 0, 0]), np.array([0, way, 0]), (1.0, 1.0), 1.0)
    return Frame(place, (30, 60, 30), 1.0, (0.0, 0.0))


def vertebra(level: int) -> np.ndarray:
    """A body whose middle is at y 10 and a process up to y 49."""
    labels = np.zeros((30, 60, 30), np.uint8)
    labels[8:21, 4:17, 8:21] = level
    labels[12:16, 17:50, 12:16] = level
    return labels


def test_the_share_is_of_what_lies_behind_and_has_the_right_level():
    true = vertebra(4)
    found = true.copy()
    found[:, 43:] = 0  # 7 of the 14 mm that lie more than 25 mm behind
    found[:, 5:20, :10] = 0
    assert process_shares(true, found, frame())[3] == pytest.approx(0.5)
    assert process_shares(true, np.where(true > 0, 5, 0), frame())[3] == 0
    assert np.isnan(np.delete(process_shares(true, found, frame()), 3)).all()


def test_behind_is_told_by_the_patient_not_by_the_rows():
    prone = vertebra(4)[:, ::-1, ::-1]
    assert process_shares(prone, prone, frame(backwards=False))[3] == 1
    assert np.isnan(process_shares(prone, prone, frame())[3])


def test_how_far_a_levels_images_lie_from_where_the_mask_puts_them(tmp_path):
    made = Levels(tmp_path)
    study = open_study(made.config, made.data.uids[0])
    coarse = level_map(np.zeros((7, 8, 12, 12)), study.geometry.z_mm[0] + 2 - 4.0 * np.arange(8), 48.0)
    grid = fine_grid(coarse, study.geometry.z_mm)
    right = map_of_labels(grid.sample_labels(study.levels), grid, coarse)
    away = places_away_mm(study, right)
    # The mask ends with the stack, the map's voxels of 4 mm beyond it.
    assert (away[:2] < 4).all()
    assert np.isnan(away[2:]).all()
    for axis, edges in ((1, [0, 1]), (2, [2]), (3, [3])):
        moved = replace(right, probabilities=np.roll(right.probabilities, 1, axis))
        change = np.abs(places_away_mm(study, moved)[1] - away[1])
        assert (change[edges] > 2).all()
        assert np.delete(change, edges) == pytest.approx(0)


def test_what_is_missing_is_named(tmp_path):
    config = load(Config, Path("configs/vertebra/volume.yaml"), [f"paths.oof={tmp_path}"])
    with pytest.raises(UserError, match="--runs vertebra-volume"):
        bones_table([], config, 3)
    with pytest.raises(UserError, match="level maps"):
        bones_table(["none"], config, 3)
