"""Where things are, and files written so that a reader never sees half of one."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cspine.config import DatasetConfig, digest, to_dict
from cspine.errors import UserError

RSNA_NAME = "rsna-2022-cervical-spine-fracture-detection"
PHANTOM_NAME = "phantom"
GET_DATA = (
    f"download the competition's data (kaggle competitions download -c {RSNA_NAME}) into input/{RSNA_NAME}, "
    "or make a phantom: python src/phantom.py --out input/phantom --matrix 256 --spacing 1"
)


def find_dataset(config: DatasetConfig) -> Path:
    """The folder of the raw data: `data.root`, else the RSNA data under `paths.input`, else the phantom there."""
    if config.data.root is not None:
        root = Path(config.data.root)
        if not root.is_dir():
            raise UserError(f"data.root={root}: no such folder; {GET_DATA}")
        return root
    for name in (RSNA_NAME, PHANTOM_NAME):
        if (root := Path(config.paths.input) / name).is_dir():
            return root
    raise UserError(f"no data under {config.paths.input}/: {GET_DATA}")


def cache_folder(config: DatasetConfig) -> Path:
    """The folder of the cache for these preprocessing settings."""
    return Path(config.paths.cache) / digest(to_dict(config.preprocess))


def folds_file(config: DatasetConfig) -> Path:
    return Path(config.paths.input) / "folds.csv"


def need(file: Path, command: str) -> Path:
    """The file, or an error that names the command that makes it."""
    if not file.exists():
        raise UserError(f"{file} is missing; make it with: {command}")
    return file


@contextmanager
def atomic(file: Path) -> Iterator[Path]:
    """A temporary path beside `file` that replaces it when the block ends without an error."""
    file.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last because writers choose their format by it.
    temporary = file.with_name(f".{file.stem}.{os.getpid()}{file.suffix}")
    try:
        yield temporary
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(file: Path, value: Any) -> None:
    with atomic(file) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


def read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{file}: not valid JSON ({error}); delete it and make it again") from error


def sha256(file: Path) -> str:
    """The SHA-256 of a file, in hex."""
    hasher = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            hasher.update(chunk)
    return hasher.hexdigest()
