"""A decoder that is missing comes from the bundle's wheels, and what stays missing is told."""

import sys
import zipfile
from pathlib import Path

import pytest

from cspine import decoders
from cspine.bundle import Bundle
from cspine.decoders import missing_decoders, offer_decoders
from cspine.paths import sha256

ABSENT = {"decoder_of_a_test": ("nothing", "decoder-of-a-test")}


def write_wheel(folder: Path) -> Path:
    """The smallest wheel that pip installs."""
    wheel = folder / "decoder_of_a_test-1.0-py3-none-any.whl"
    info = "decoder_of_a_test-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("decoder_of_a_test.py", "ANSWER = 42\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: decoder-of-a-test\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


@pytest.fixture
def one_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "DECODERS", ABSENT)
    monkeypatch.setattr(sys, "path", list(sys.path))


def test_here_none_is_missing(tmp_path: Path) -> None:
    told: list[str] = []
    offer_decoders(Bundle(tmp_path, (), (), {}), told.append)
    assert told == []


@pytest.mark.usefixtures("one_missing")
def test_a_missing_one_is_installed_from_its_wheel(tmp_path: Path) -> None:
    assert missing_decoders() == ["decoder_of_a_test"]
    told: list[str] = []
    wheel = write_wheel(tmp_path)
    offer_decoders(Bundle(tmp_path, (), (), {}, {wheel.name: sha256(wheel)}), told.append)
    assert told == ["decoder_of_a_test (nothing) is not installed; installed from the bundle's wheels"]
    assert missing_decoders() == []


@pytest.mark.usefixtures("one_missing")
def test_an_altered_wheel_is_not_installed(tmp_path: Path) -> None:
    told: list[str] = []
    wheel = write_wheel(tmp_path)
    offer_decoders(Bundle(tmp_path, (), (), {}, {wheel.name: "0" * 64}), told.append)
    assert "missing or not the one in the manifest" in told[0]
    offer_decoders(Bundle(tmp_path, (), (), {}), told.append)
    assert "python kernels/build.py --wheels DIR" in told[1]
    assert missing_decoders() == ["decoder_of_a_test"]
