"""The table of heads: real runs beside a reader that sees the gap and one that knows frequencies alone."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_pipeline import Prepared

from cspine.anatomy import LEVELS
from cspine.benchmarks.aggregations import WAYS, aggregated, aggregations_table
from cspine.benchmarks.heads import heads_table
from cspine.benchmarks.oracles import PREVALENCE, READER, level_visibility, oracles, reader_oracle
from cspine.blend import nested_blend
from cspine.calibrate import nested_prior
from cspine.errors import UserError
from cspine.metrics import auc, weighted_log_loss
from cspine.runs import OutOfFold, find_runs, read_out_of_fold
from cspine.tables import STUDY, write_table


def simulated(studies: int = 300, seed: int = 0) -> OutOfFold:
    rng = np.random.default_rng(seed)
    levels = rng.random((studies, len(LEVELS))) < 0.15
    labels = np.column_stack([levels.any(1), levels]).astype(int)
    return OutOfFold(tuple(f"s{k}" for k in range(studies)), np.arange(studies) % 5, labels, {})


def test_a_reader_of_clear_fractures_is_nearly_right_and_of_invisible_ones_no_better_than_frequencies() -> None:
    data = simulated()
    broken = data.labels[:, 1:] > 0
    clear, faint, hidden = (reader_oracle(data, size * broken, 0) for size in (8.0, 1.5, 0.0))
    assert weighted_log_loss(data.labels, clear, "column") < 0.01
    assert auc(data.labels[:, 0], clear[:, 0]) == 1
    assert 0.6 < auc(broken.ravel(), faint[:, 1:].ravel()) < 0.95  # the area under a normal shift of 1.5 is 0.86
    # Nothing seen: each level's rate in the other folds.
    rates = np.array([hidden[data.folds == fold, 1:].std(axis=0).max() for fold in range(5)])
    np.testing.assert_allclose(rates, 0, atol=1e-12)


def test_a_reader_says_how_probable_what_it_sees_is() -> None:
    """Where it says p, a share p of the levels is broken (10 bins of 2,100 levels: deviations up to 0.1)."""
    data = simulated(1500, 3)
    told = reader_oracle(data, 2.0 * (data.labels[:, 1:] > 0), 1)[:, 1:].ravel()
    truth = data.labels[:, 1:].ravel()
    for low in np.linspace(0, 0.9, 10):
        here = (told >= low) & (told < low + 0.1)
        if here.sum() > 100:
            assert abs(told[here].mean() - truth[here].mean()) < 0.1


def test_the_most_visible_fracture_of_a_level_counts() -> None:
    data = simulated(3)
    rows = [("s1", "C2", 3.0), ("s1", "C2", 5.0), ("s2", "C7", 1.0)]
    found = level_visibility(data, pd.DataFrame(rows, columns=[STUDY, "level", "visibility"]))
    expected = np.zeros((3, 7))
    expected[1, 1], expected[2, 6] = 5, 1
    np.testing.assert_array_equal(found, expected)


def test_the_prevalence_is_that_of_the_other_folds() -> None:
    data = simulated(50)
    told = nested_prior(data.labels, data.folds)
    changed = OutOfFold(data.uids, data.folds, np.where((data.folds == 2)[:, None], 1, data.labels), {})
    np.testing.assert_array_equal(told[data.folds == 2], nested_prior(changed.labels, changed.folds)[data.folds == 2])
    assert (nested_prior(changed.labels, changed.folds)[data.folds == 0] > told[data.folds == 0]).all()


def test_data_without_a_table_of_fractures_has_no_reader(tmp_path: Path) -> None:
    assert list(oracles(simulated(), tmp_path / "fractures.csv")) == [PREVALENCE]


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    with tempfile.TemporaryDirectory() as folder:
        made = Prepared(Path(folder))
        made.train()
        yield made


def test_every_whole_run_is_a_row_between_the_oracles(prepared: Prepared) -> None:
    broken = pd.DataFrame({STUDY: [prepared.data.uids[0]], "level": ["C1"], "visibility": [9.0]})
    write_table(broken, prepared.data.root / "fractures.csv")
    text = heads_table([], prepared.fracture, studies=2)
    table = pd.read_csv(prepared.oof / "heads.csv").set_index("run")
    assert set(table.index) == {"f", PREVALENCE, READER}
    assert table["column"].is_monotonic_increasing
    assert (table["column_low"] <= table["column"]).all()
    assert (table["column"] <= table["column_high"]).all()
    costs = table[["minutes", "seconds_a_study"]]
    assert (costs.loc["f"] > 0).all()
    assert costs.loc[[PREVALENCE, READER]].isna().all(axis=None)
    assert all(name in text for name in table.index)
    data = read_out_of_fold(find_runs(prepared.oof, ["f"]), prepared.fracture)
    calibrated = nested_blend(data.predictions["f"][None], data.labels, data.folds)
    assert table.loc["f", "calibrated"] == pytest.approx(weighted_log_loss(data.labels, calibrated, "column"), abs=1e-5)


def test_without_a_whole_run_there_is_no_table(prepared: Prepared, tmp_path: Path) -> None:
    nowhere = replace(prepared.fracture, paths=replace(prepared.fracture.paths, oof=str(tmp_path)))
    with pytest.raises(UserError, match="train some"):
        heads_table([], nowhere, studies=1)


def test_slices_joined_as_the_run_does_give_its_own_table(prepared: Prepared) -> None:
    config = prepared.fracture
    data = read_out_of_fold(find_runs(prepared.oof, ["f"]), config)
    told = aggregated("f", data, config)
    np.testing.assert_allclose(told["mean, by presence"], data.predictions["f"], atol=1e-5)
    # The greatest is at least the mean of the greatest few.
    assert (told["greatest"] >= told["clearest 5 mm"] - 1e-12).all()
    text = aggregations_table(["f"], config)
    assert all(way in text for way in WAYS)
    with pytest.raises(UserError, match="v does not judge slices"):
        aggregations_table(["v"], config)
    with pytest.raises(UserError, match="--runs fracture-slice"):
        aggregations_table([], config)
