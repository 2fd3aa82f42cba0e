import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import damage

REPOSITORY = Path(__file__).parents[1]


def prepare(tiny, *words):
    config = tiny.config
    overrides = [
        f"data.root={tiny.root}",
        f"paths.input={config.paths.input}",
        f"paths.cache={config.paths.cache}",
        "preprocess.field_mm=48",
        "preprocess.size_px=24",
        "data.workers=1",
    ]
    command = [sys.executable, "src/prepare.py", *words, *overrides]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_prepare_twice_then_check(tiny):
    for file in tiny.images(tiny.uids[5]).iterdir():
        damage(file, 0.4)
    first = prepare(tiny)
    assert first.returncode == 0, first.stderr
    assert "5 studies prepared" in first.stdout
    assert f"bad: {tiny.uids[5]}: 0 usable slices" in first.stdout
    assert len(Path(tiny.config.paths.input, "folds.csv").read_text().splitlines()) == 7
    second = prepare(tiny)
    assert "0 studies prepared" in second.stdout
    assert "5 already there, 1 bad" in second.stdout

    check = prepare(tiny, "--check")
    assert check.returncode == 1
    assert "1 errors, 0 warnings, 6 notes" in check.stdout
    report = json.loads(Path(tiny.config.paths.cache, "check.json").read_text())
    assert set(report) == {"summary", "fingerprint", "findings"}
    finding = report["findings"][0]
    assert finding["severity"] == "error"
    assert tiny.uids[5] in finding["where"]


def test_nothing_usable_is_a_failure_and_no_traceback(tiny):
    for uid in tiny.uids:
        for file in tiny.images(uid).iterdir():
            file.write_text("hello")
    done = prepare(tiny)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--split", "validation"], 2, "invalid choice"),
        (["preprocess.size=3"], 1, "did you mean 'size_px'"),
        (["--config", "configs/bse.yaml"], 1, "did you mean 'configs/base.yaml'"),
    ],
)
def test_misuse(tiny, words, status, message):
    done = prepare(tiny, *words)
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr
