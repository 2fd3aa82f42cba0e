"""The ablation: what a switch changes, which caches and cells are made, what the table and the figure tell."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from tiny_pipeline import ALONE, Prepared

from cspine.ablation import BASELINE, NAMES, SEEDS, SWITCHES, ablate, ablation_text, choose_switches, effects
from cspine.cells import KEYS, MEASURES
from cspine.config import Config, differences, load, overridden, to_dict
from cspine.data.cache import bad_studies, cached_studies
from cspine.errors import UserError
from cspine.pictures.ablation import draw_ablation
from cspine.pictures.canvas import save

ROOT = Path(__file__).parents[1]
ONE = {"no-augmentation": ("augment.share=0",)}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(tmp_path_factory.mktemp("ablation"))


@pytest.fixture
def config(prepared: Prepared) -> Config:
    shutil.rmtree(prepared.oof, ignore_errors=True)
    made = prepared.config("ablation", "vertebra/image")
    return replace(made, train=replace(made.train, epochs=1))


def test_every_switch_changes_preprocessing_or_augmentation_of_the_baseline_and_nothing_else() -> None:
    baseline = load(Config, ROOT / "configs/vertebra/ablation.yaml")
    found = {}
    for name, words in SWITCHES.items():
        switched = overridden(baseline, words, where=name)
        changed = {line.split(":")[0] for line in differences(to_dict(baseline), to_dict(switched))}
        assert changed == {word.split("=")[0] for word in words}, name
        assert {key.split(".")[0] for key in changed} <= {"preprocess", "augment"}, name
        found[name] = switched
    assert len(set(found.values())) == len(SWITCHES)
    # Every key of the section is switched by some entry.
    augment = {word.split("=")[0] for words in SWITCHES.values() for word in words if word.startswith("augment.")}
    assert augment == {f"augment.{key}" for key in to_dict(baseline)["augment"]}


def test_cells_are_rows_paired_by_fold_and_seed_and_only_missing_ones_are_trained(config: Config) -> None:
    rows = ablate(config, ONE, ALONE)
    assert list(rows["switch"].unique()) == [BASELINE, *ONE]
    assert len(rows) == 2 * 2 * SEEDS
    for _, found in rows.groupby("switch"):
        assert set(zip(found["fold"], found["seed"], strict=True)) == {(f, s) for f in (0, 1) for s in range(SEEDS)}
    # Each pair of fold and seed is measured on the same slices.
    assert (rows.groupby("fold")[["training_slices", "held_out_slices", "constant"]].nunique() == 1).all(axis=None)
    # A seed is a training of its own.
    assert rows["config_hash"].nunique() == 2 * SEEDS

    file = Path(config.paths.oof) / "ablation" / "ablation.csv"
    table = pd.read_csv(file, dtype={"config_hash": str, "data": str})
    assert tuple(table.columns) == (*NAMES, *KEYS, *MEASURES)
    table.drop(index=7).assign(seconds=99.0).to_csv(file, index=False)
    again = ablate(config, ONE, ALONE)
    assert np.flatnonzero(again["seconds"] != 99).tolist() == [7]
    assert np.allclose(again["accuracy"], rows["accuracy"])

    # Another baseline shares none.
    other = replace(config, train=replace(config.train, max_rate=1e-4))
    assert (ablate(other, {}, ALONE, quick=True)["seconds"] != 99).all()


def test_a_preprocessing_switch_makes_its_cache_of_the_studies_with_masks(config: Config, prepared: Prepared) -> None:
    # Two windows: the model has as many channels as the switch asks for.
    words = ("preprocess.windows=[bone,soft_tissue]",)
    switched = overridden(config, words, where="test")
    assert cached_studies(switched) == []
    ablate(config, {"other": words}, ALONE, quick=True)
    assert cached_studies(switched) == prepared.data.uids[1:5]
    assert len(cached_studies(config)) == len(prepared.data.uids)
    assert bad_studies(switched) == {}


def test_a_study_that_cannot_be_prepared_again_is_told(config: Config, prepared: Prepared) -> None:
    mask = prepared.data.mask(prepared.data.uids[2])
    kept = mask.read_bytes()
    mask.write_bytes(b"no mask")
    try:
        with pytest.raises(UserError, match=r"prepare\.py --check"):
            ablate(config, {"other": ("preprocess.mask_threshold_hu=-322",)}, ALONE, quick=True)
    finally:
        mask.write_bytes(kept)


def test_a_switch_that_changes_nothing_or_is_unknown_is_refused_before_anything_is_trained(config: Config) -> None:
    with pytest.raises(UserError, match="changes nothing"):
        ablate(replace(config, augment=replace(config.augment, share=0)), ONE, ALONE)
    assert not Path(config.paths.oof).exists()
    with pytest.raises(UserError, match="did you mean 'mixup'"):
        choose_switches(config, ["mixupp"])
    assert list(choose_switches(config, ["blur", "mixup"])) == ["blur", "mixup"]


def test_a_switch_whose_run_is_not_trained_is_left_out_of_all_and_refused_by_name(
    config: Config, capsys: pytest.CaptureFixture
) -> None:
    assert list(choose_switches(config, [])) == [name for name in SWITCHES if name != "mask-learned"]
    assert "mask-learned is left out: preprocess.mask=learned needs the level maps" in capsys.readouterr().out
    with pytest.raises(UserError, match="needs the level maps"):
        ablate(config, choose_switches(config, ["mask-learned"]), ALONE)
    run = Path(config.paths.oof) / "vertebra-volume"
    (run / "fold0" / "levels").mkdir(parents=True)
    (run / "slices.parquet").touch()
    assert choose_switches(config, []) == SWITCHES


def made_up_rows(folds: int = 2, **differences: float) -> pd.DataFrame:
    """Baseline 0.9 + 0.01 * seed + 0.02 * fold; a switch adds its difference, and 0.004 * fold."""
    rows = [
        (name, fold, seed, "hash", "data", "none", 64, 640, 160, 0.86, accuracy, 2.0)
        for name, difference in {BASELINE: 0.0, **differences}.items()
        for fold in range(folds)
        for seed in range(3)
        for accuracy in [0.9 + 0.01 * seed + 0.02 * fold + difference + 0.004 * fold * (name != BASELINE)]
    ]
    return pd.DataFrame(rows, columns=[*NAMES, *KEYS, *MEASURES])


def test_differences_are_paired_so_that_what_fold_and_seed_share_cancels() -> None:
    table = effects(made_up_rows(better=0.01, worse=-0.02))
    assert list(table.index) == ["better", BASELINE, "worse"]
    assert table.loc["better", "difference"] == pytest.approx(0.012)
    assert table.loc["worse", "difference"] == pytest.approx(-0.018)
    # Seeds and folds differ by more, and none of that is in the deviation of the difference.
    assert table["seeds_sd"].to_numpy() == pytest.approx(0.01)
    assert table.loc["better", "difference_sd"] == pytest.approx(np.std([0, 0.004] * 3, ddof=1))
    assert table.loc[BASELINE, ["difference", "difference_sd"]].tolist() == [0, 0]
    assert table["better"].to_dict() == {"better": 6, BASELINE: 0, "worse": 0}
    assert (table["pairs"] == 6).all()


def test_the_order_of_rows_does_not_matter() -> None:
    rows = made_up_rows(better=0.01, worse=-0.02)
    pd.testing.assert_frame_equal(effects(rows), effects(rows.sample(frac=1, random_state=0)))


def test_the_text_tells_the_effects_in_points() -> None:
    text = ablation_text(made_up_rows(folds=1, better=0.01, worse=-0.02))
    better = next(line for line in text.splitlines() if line.startswith("better"))
    assert better.split()[1:] == ["92.00", "1.00", "+1.00", "0.00", "3", "2.0"]
    assert "3 pairs of fold and seed each; the same answer on every slice: 86.00" in text
    assert "seeds alone move the baseline by 1.00" in text


def test_the_figure_has_a_line_a_switch_the_best_on_top(tmp_path: Path) -> None:
    rows = made_up_rows(better=0.01, worse=-0.02, worst=-0.03)
    figure = draw_ablation(rows)
    save(figure, tmp_path / "figure.png")
    assert matplotlib.image.imread(tmp_path / "figure.png").std() > 0.05
    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["worst", "worse", "better"]
    assert "2 group folds, 3 seeds" in axis.get_title(loc="left")
    dots = np.concatenate([found.get_offsets() for found in axis.collections if len(found.get_offsets()) == 6])
    assert sorted(set(np.round(dots[:, 0], 6))) == [-3, -2.6, -2, -1.6, 1, 1.4]


def test_the_command_prints_and_draws(prepared: Prepared) -> None:
    words = [sys.executable, "src/compare.py", *prepared.overrides, "preprocess.field_mm=48", "preprocess.size_px=24"]
    words += ["folds.count=2", "train.batch_size=8", "data.workers=0", "data.image_size_px=32", "train.epochs=1"]
    done = subprocess.run(
        [*words, "--quick", "--ablation", "cut-out"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "pairs of fold and seed" in done.stdout
    for name in ("ablation.png", "ablation.csv"):
        assert (prepared.oof / "ablation" / name).is_file()


def test_backbones_and_switches_are_not_compared_at_once() -> None:
    words = [sys.executable, "src/compare.py", "--ablation", "--backbones", "lcnet_050"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
