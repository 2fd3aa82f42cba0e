"""What README.md and docs/ name exists: commands, files, make targets, config keys, tests."""

import re
from pathlib import Path

from cspine.config import Config, load

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(page.read_text() for page in PAGES)
TREE = (ROOT / "README.md").read_text().split("## The tree")[1]


def test_nothing_is_left_to_fill_in():
    assert not re.findall(r"@[A-Z]+@|TODO|TBD", TEXT)


def test_every_command_and_config_exists():
    named = set(re.findall(r"(?:python\S*|torchrun[^`\n]*?)\s((?:src|kernels|tests)/\w+\.py)", TEXT))
    assert {"src/prepare.py", "src/train.py", "kernels/build.py", "tests/fuzz_dicom.py"} <= named
    for path in named | set(re.findall(r"configs/[\w/]+\.yaml", TEXT)):
        assert (ROOT / path).is_file(), path


def test_every_make_target_exists():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"(?:`|^)make ([a-z]+)", TEXT, re.M))
    assert {"demo", "test"} <= named <= targets


def test_every_option_of_a_command_exists():
    for command, words in re.findall(r"python ((?:src|kernels|tests)/\w+\.py)([^`\n;]*)", TEXT):
        source = (ROOT / command).read_text()
        for option in re.findall(r"\s(--[\w-]+)", words):
            assert option in source, f"{command} {option}"


def test_every_key_exists():
    config = load(Config, ROOT / "configs" / "vertebra" / "image.yaml")
    for section, key in re.findall(r"\b(data|train|model|preprocess|augment|paths|folds)\.(\w+)=", TEXT):
        assert hasattr(getattr(config, section), key), f"{section}.{key}"


def test_the_tree_holds_every_module_and_nothing_else():
    named = set(re.findall(r"(?<![\w/.-])(\w+\.py)\b", TREE))
    there = {path.name for path in (ROOT / "src").rglob("*.py")} - {"__init__.py"}
    there |= {path.name for path in (ROOT / "kernels").rglob("*.py")} - {"kernel.py"}
    assert there - named == set()
    assert named - there - {path.name for path in (ROOT / "tests").rglob("*.py")} - {"kernel.py"} == set()


def test_every_test_that_the_docs_name_exists():
    sources = {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    files = set(re.findall(r"(test_\w+\.py)", TEXT))
    assert files <= set(sources), files - set(sources)
    for file, name in re.findall(r"(test_\w+\.py)::(test_\w+)", TEXT):
        assert f"def {name}" in sources[file], f"{file}::{name}"
