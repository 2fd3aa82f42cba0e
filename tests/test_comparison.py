"""The comparison of backbones: which slices are held out, what is trained again, what is printed and drawn."""

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

from cspine.cells import KEYS, MEASURES, SplitTask, masked_slices
from cspine.comparison import GROUP, NAMES, PLAIN, compare, comparison_text, finalists, held_out, make_cell
from cspine.config import Config, load
from cspine.errors import UserError
from cspine.models.backbones import REPORT
from cspine.pictures.canvas import save
from cspine.pictures.comparison import draw_accuracy_and_time, draw_folds

ROOT = Path(__file__).parents[1]
BACKBONES = ["lcnet_050", "squeezenet1_0"]
COLUMNS = (*NAMES, *KEYS, *MEASURES)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(tmp_path_factory.mktemp("comparison"))


@pytest.fixture
def config(prepared: Prepared) -> Config:
    shutil.rmtree(prepared.oof, ignore_errors=True)
    made = prepared.config("compare", "vertebra/image")
    return replace(made, train=replace(made.train, epochs=1), data=replace(made.data, image_size_px=64))


def test_the_plain_split_shares_studies_and_the_group_split_does_not(config: Config) -> None:
    slices = masked_slices(config)
    assert len(slices.studies) == 4
    assert len(slices.study) == 32
    plain = held_out(slices, PLAIN, 0, seed=1)
    assert plain.sum() == round(0.2 * 32)
    assert set(slices.study[plain]) <= set(slices.study[~plain])
    assert not np.array_equal(plain, held_out(slices, PLAIN, 0, seed=2))
    group = [held_out(slices, GROUP, fold, seed=1) for fold in (0, 1)]
    assert np.array_equal(group[0], ~group[1])
    assert not set(slices.study[group[0]]) & set(slices.study[~group[0]])


def test_fewer_slices_are_spread_over_the_study_and_nothing_is_trained_on_twice(config: Config) -> None:
    slices = masked_slices(replace(config, data=replace(config.data, slices_per_study=3)))
    assert slices.index[:3].tolist() == [0, 4, 7]
    assert np.array_equal(slices.presence[:3, 0], [True, False, False])
    chosen = held_out(slices, PLAIN, 0, seed=1)
    task = SplitTask(replace(config, data=replace(config.data, slices_per_study=1)), slices, chosen)
    drawn = task.training_samples().draw(np.random.default_rng(0))
    assert sorted(drawn) == list(range(int((~chosen).sum())))


def test_accuracy_is_the_mean_over_slices_and_levels(config: Config) -> None:
    slices = masked_slices(config)
    task = SplitTask(config, slices, held_out(slices, GROUP, 0, seed=1))
    truth = slices.presence[task.held_out]
    logits = np.where(truth, 0.1, -0.1)
    assert task.accuracy(logits) == 1
    logits[0, 0] *= -1
    assert task.accuracy(logits) == pytest.approx(1 - 1 / truth.size)
    # C1 is on two of eight slices and C2 on three: never the usual answer.
    assert task.constant_accuracy() == pytest.approx(1 - 5 / 56)


def test_a_split_with_nothing_on_one_side_is_refused(config: Config) -> None:
    slices = masked_slices(config)
    with pytest.raises(UserError, match="too few studies with masks"):
        SplitTask(config, slices, np.zeros(len(slices.study), bool))


def test_cells_are_rows_and_only_missing_ones_are_trained(config: Config) -> None:
    rows = compare(config, BACKBONES, ALONE)
    assert list(rows["protocol"]) == [PLAIN, GROUP] * 2 + [GROUP] * 2
    assert rows["accuracy"].between(0, 1).all()
    assert (rows["seconds"] > 0).all()
    file = Path(config.paths.oof) / "compare" / "comparison.csv"
    table = pd.read_csv(file)
    assert tuple(table.columns) == COLUMNS
    assert not list(file.parent.rglob("last.ckpt"))

    # What an interruption leaves out is trained, to the same figures, and the rest is not.
    table.drop(index=1).assign(seconds=99.0).to_csv(file, index=False)
    again = compare(config, BACKBONES, ALONE)
    assert (again["seconds"] == 99).sum() == len(rows) - 1
    assert again.loc[1, "seconds"] != 99
    assert np.allclose(again["accuracy"], rows["accuracy"])

    # Another config is another cell, and leaves the rows of the first.
    other = compare(replace(config, train=replace(config.train, max_rate=1e-4)), BACKBONES[:1], ALONE, quick=True)
    assert len(other) == 2
    assert (other["seconds"] != 99).all()
    assert len(pd.read_csv(file)) == len(rows) + 2


def made_up_rows() -> pd.DataFrame:
    rows = []
    for number, backbone in enumerate(REPORT):
        cells = [(PLAIN, 0, 0.98 - 0.005 * number), (GROUP, 0, 0.95 - 0.004 * number)]
        cells += [(GROUP, fold, 0.94 + 0.002 * fold - 0.004 * number) for fold in range(1, 5) if number < 5]
        for protocol, fold, accuracy in cells:
            cell = (
                backbone,
                protocol,
                fold,
                "hash",
                "data",
                "none",
                64,
                640,
                160,
                0.87 if protocol == PLAIN else 0.86,
                accuracy,
                2.0 * 1.5**number,
            )
            rows.append(cell)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def test_the_text_tells_the_leak_and_the_spread() -> None:
    rows = made_up_rows()
    assert finalists(rows) == list(REPORT)[:5]
    text = comparison_text(rows)
    leak = np.mean([0.03 - 0.001 * number for number in range(14)])
    assert f"mean {leak:+.4f}, from +0.0170 to +0.0300 over 14 backbones" in text
    assert "AlexNet, 5 group folds: 0.9460 +- 0.0032, 2.0 s" in text
    assert "the same answer on every slice: plain 0.8700, group 0.8600" in text


@pytest.mark.parametrize("draw", [draw_accuracy_and_time, draw_folds])
def test_the_figures_show_the_rows(draw: object, tmp_path: Path) -> None:
    rows = made_up_rows()
    figure = draw(rows)  # type: ignore[operator]
    save(figure, tmp_path / "figure.png")
    assert matplotlib.image.imread(tmp_path / "figure.png").std() > 0.05
    texts = {text.get_text() for text in figure.axes[0].texts} | {
        label.get_text() for label in figure.axes[0].get_xticklabels()
    }
    assert set(finalists(rows)) <= texts


def test_report_names_and_factory_names_make_the_same_training(config: Config) -> None:
    one, other = (make_cell(config, name, PLAIN, 0) for name in ("ResNet50", "resnet50"))
    assert one.config == other.config
    assert one.config.model.backbone == "resnet50"


def test_an_unknown_backbone_is_told_before_anything_is_trained(config: Config) -> None:
    with pytest.raises(UserError, match="did you mean"):
        compare(config, [BACKBONES[0], "ResNet5"], ALONE)
    assert not Path(config.paths.oof).exists()


def test_the_command_prints_and_draws(prepared: Prepared) -> None:
    words = [sys.executable, "src/compare.py", *prepared.overrides, "preprocess.field_mm=48", "preprocess.size_px=24"]
    words += ["folds.count=2", "train.batch_size=8", "data.workers=0", "data.image_size_px=64", "--quick"]
    done = subprocess.run([*words, "--backbones", "lcnet_050"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "leak of the plain split" in done.stdout
    for name in ("accuracy_and_time.png", "group_folds.png", "comparison.csv"):
        assert (prepared.oof / "compare" / name).is_file()


def test_the_config_is_the_reports_experiment() -> None:
    config = load(Config, ROOT / "configs/vertebra/compare.yaml")
    assert (config.train.epochs, config.train.batch_size, config.train.max_rate) == (1, 32, 1e-3)
    assert config.augment.share == 0
    assert config.data.slices_per_study is None
