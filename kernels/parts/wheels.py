"""Wheels of the DICOM decoders for every Python that Kaggle may run, to go along with the weights."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from cspine.decoders import DECODERS
from cspine.errors import UserError

PYTHONS = ("310", "311", "312", "313")
PLATFORMS = ("manylinux2010_x86_64", "manylinux2014_x86_64", "manylinux_2_28_x86_64")


def collect_wheels(folder: Path, pinned: Mapping[str, str]) -> list[Path]:
    """The wheels in `folder` of the `pinned` versions (distribution -> version); those that are not there from PyPI."""
    return sorted(
        {_find(folder, name, pinned, python) or _fetch(folder, name, pinned, python) for name, python in _wanted()}
    )


def pinned_versions(requirements: Path) -> dict[str, str]:
    """The versions in a requirements.txt, by distribution."""
    lines = [line.split("==") for line in requirements.read_text().splitlines() if "==" in line and line[0] != "#"]
    return {line[0]: line[-1].lstrip("=") for line in lines}


def _wanted() -> list[tuple[str, str]]:
    return [(distribution, python) for _, distribution in DECODERS.values() for python in PYTHONS]


def _find(folder: Path, name: str, pinned: Mapping[str, str], python: str) -> Path | None:
    start = f"{name.replace('-', '_')}-{pinned[name]}-"
    fitting = [file for file in folder.glob("*.whl") if file.name.startswith(start)]
    return next((file for file in fitting if f"-cp{python}-" in file.name or "-py3-none-any" in file.name), None)


def _fetch(folder: Path, name: str, pinned: Mapping[str, str], python: str) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--python-version", python, "--dest", str(folder)]
    command += [word for platform in PLATFORMS for word in ("--platform", platform)]
    done = subprocess.run([*command, f"{name}=={pinned[name]}"], capture_output=True, text=True, check=False)
    found = _find(folder, name, pinned, python)
    if done.returncode or found is None:
        lines = done.stderr.strip().splitlines() or ["pip says nothing"]
        raise UserError(f"--wheels: no wheel of {name} {pinned[name]} for Python {python}: {lines[-1]}")
    return found
