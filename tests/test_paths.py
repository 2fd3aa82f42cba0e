"""Where data is found, and files of which nobody sees half."""

from dataclasses import replace
from pathlib import Path

import pytest

from cspine.config import Data, DatasetConfig, Paths
from cspine.errors import UserError
from cspine.paths import PHANTOM_NAME, RSNA_NAME, atomic, cache_folder, find_dataset, need, read_json, write_json


def test_the_real_data_comes_before_the_phantom_and_an_explicit_root_before_both(tmp_path: Path) -> None:
    config = DatasetConfig(paths=Paths(input=str(tmp_path)))
    with pytest.raises(UserError, match=r"kaggle competitions download .* or make a phantom: python src/phantom\.py"):
        find_dataset(config)
    for name in (PHANTOM_NAME, RSNA_NAME):
        (tmp_path / name).mkdir()
        assert find_dataset(config).name == name
    (tmp_path / "own").mkdir()
    assert find_dataset(replace(config, data=Data(root=str(tmp_path / "own")))).name == "own"
    with pytest.raises(UserError, match="no such folder"):
        find_dataset(replace(config, data=Data(root=str(tmp_path / "nowhere"))))


def test_the_cache_has_a_folder_for_what_shapes_pixels_and_for_nothing_else() -> None:
    config = DatasetConfig()
    other = replace(config, preprocess=replace(config.preprocess, size_px=128))
    assert cache_folder(config) != cache_folder(other)
    assert cache_folder(config) == cache_folder(replace(config, data=Data(image_size_px=64)))


def test_an_interrupted_write_leaves_the_file_before_it(tmp_path: Path) -> None:
    file = tmp_path / "new" / "x.json"
    write_json(file, {"a": 1})

    def interrupted() -> None:
        with atomic(file) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert read_json(file) == {"a": 1}
    assert [path.name for path in file.parent.iterdir()] == ["x.json"]


def test_what_is_missing_or_damaged_names_the_way_on(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x\.json is missing; make it with: python src/x\.py"):
        need(tmp_path / "x.json", "python src/x.py")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        read_json(tmp_path / "x.json")
