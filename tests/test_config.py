"""The schema refuses what it does not know, and a config means the same from YAML, overrides and JSON."""

import dataclasses
import shlex
from pathlib import Path

import pytest

from cspine.config import (
    Config,
    DatasetConfig,
    Preprocess,
    as_overrides,
    build,
    config_hash,
    differences,
    hashed_part,
    load,
    to_dict,
)
from cspine.data.slices import channels
from cspine.errors import UserError
from cspine.models.registry import create_model
from cspine.pipeline import read_configs
from cspine.tasks.base import find_task, list_tasks

ROOT = Path(__file__).parent.parent
PIPELINES = [ROOT / "configs/pipeline.yaml", ROOT / "configs/demo/pipeline.yaml"]
MODEL_CONFIGS = sorted(
    path for path in (ROOT / "configs").rglob("*.yaml") if path not in PIPELINES and path.name != "base.yaml"
)


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_base_is_laid_under_and_overrides_on_top(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", "folds: {count: 3, seed: 7}\npaths: {oof: elsewhere}\n")
    file = write(tmp_path, "sub/model.yaml", "base: ../base.yaml\nname: a\ntask: t\nfolds: {count: 4}\n")
    config = load(Config, file, ["train.max_rate=1e-4", "folds.seed=9", "data.root=null"])
    assert (config.folds.count, config.folds.seed, config.paths.oof) == (4, 9, "elsewhere")
    assert config.train.max_rate == 1e-4
    assert config.data.root is None


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("folds.coutn=3", "did you mean 'count'"),
        ("trian.epochs=3", "unknown key 'trian'"),
        ("folds.count=1", "folds.count must be at least 2"),
        ("augment.shift_x=1.5", "at most 1"),
        ("augment.shift=0.1", "unknown key 'augment.shift'; did you mean"),
        ("folds.count=many", "folds.count must be int"),
        ("folds.count=2.5", "folds.count must be int"),
        ("folds.count=true", "folds.count must be int"),
        ("preprocess.mask_threshold_hu=low", "must be a number"),
        ("preprocess.windows=[bnoe]", "preprocess.windows: 'bnoe' is no window; did you mean 'bone'?"),
        ("preprocess.windows=[700..-100]", "must rise"),
        ("preprocess.windows=[0..99999]", "within -32768..32767 HU"),
        ("preprocess.windows=[]", "at least one window"),
        ("preprocess.windows=bone", "preprocess.windows must be a list"),
        ("preprocess.mask=kmean", "did you mean 'kmeans'"),
        ("preprocess.field_mm=.nan", "must be at least"),
        ("data=1", "data is a section"),
        ("name.x=1", "'name' is a value"),
        ("train.precision=float61", "did you mean 'float16'"),
        ("data.root=[", "not valid YAML"),
    ],
)
def test_a_bad_override_is_one_clear_line(tmp_path: Path, override: str, told: str) -> None:
    file = write(tmp_path, "model.yaml", "name: a\ntask: vertebra/image\n")
    with pytest.raises(UserError) as caught:
        load(Config, file, [override])
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_missing_key_are_named(tmp_path: Path) -> None:
    write(tmp_path, "model.yaml", "task: t\n")
    with pytest.raises(UserError, match=r"modle.yaml: no such config.*model.yaml"):
        load(Config, tmp_path / "modle.yaml")
    with pytest.raises(UserError, match="'name' is missing"):
        load(Config, tmp_path / "model.yaml")


def test_hash_ignores_where_and_how_fast_but_not_what(tmp_path: Path) -> None:
    file = write(tmp_path, "model.yaml", "name: a\ntask: t\n")
    plain = load(Config, file)
    same = load(Config, file, ["paths.oof=x", "data.workers=0", "train.device=cpu", "data.root=y"])
    other = load(Config, file, ["train.seed=1"])
    assert config_hash(plain) == config_hash(same)
    assert config_hash(plain) != config_hash(other)
    assert differences(hashed_part(plain), hashed_part(other)) == ["train.seed: 0 -> 1"]


def test_json_gives_the_same_config_back(tmp_path: Path) -> None:
    file = write(tmp_path, "model.yaml", "name: a\ntask: t\npreprocess: {field_mm: null}\n")
    config = load(Config, file)
    assert build(Config, to_dict(config), "json") == config


def test_overrides_for_a_message_can_be_pasted_behind_a_command(tmp_path: Path) -> None:
    changed = Preprocess(windows=("bone", "-100..300"), field_mm=None, mask="kmeans", size_px=64)
    words = shlex.split(as_overrides("preprocess", to_dict(changed)))
    file = write(tmp_path, "model.yaml", "preprocess: {field_mm: 20}\n")
    assert load(DatasetConfig, file, words).preprocess == changed


def test_settings_cannot_be_changed_afterwards() -> None:
    config = DatasetConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.folds = None  # type: ignore[misc,assignment]


@pytest.mark.parametrize("file", MODEL_CONFIGS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_config_loads_and_builds_its_model(file: Path) -> None:
    config = load(Config, file)
    assert config.task in list_tasks()
    model = create_model(config.model, channels(config), find_task(config.task).outputs, pretrained=False)
    assert sum(parameter.numel() for parameter in model.parameters()) > 0


@pytest.mark.parametrize("file", PIPELINES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_pipeline_trains_what_its_heads_read_before_them(file: Path) -> None:
    configs = read_configs(str(file))
    seen: set[str] = set()
    for config in configs:
        assert config.stage1 is None or config.stage1 in seen
        seen.add(config.name)
    assert len(seen) == len(configs)
