"""The kernel is one reproducible file that gives, offline and from read-only inputs, the numbers of src/predict.py."""

import json
import re
import socket
import subprocess
import sys
import zipfile
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import pytest
from parts.sandbox import GUARD, Sandbox, usable_namespace
from rehearse import compare
from tiny_pipeline import Prepared

from cspine.paths import RSNA_NAME

ROOT = Path(__file__).parent.parent


def build(trained: Prepared, folder: Path) -> tuple[Path, Path]:
    """Run kernels/build.py; the kernel and the folder of weights."""
    kernel, weights = folder / "kernel.py", folder / "weights"
    words = ["--kernel", str(kernel), "--weights", str(weights), *trained.overrides]
    done = subprocess.run(
        [sys.executable, "kernels/build.py", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return kernel, weights


def test_equal_inputs_give_equal_bytes(trained: Prepared, tmp_path: Path) -> None:
    first, second = build(trained, tmp_path / "a"), build(trained, tmp_path / "b")
    assert first[0].read_bytes() == second[0].read_bytes()
    files = {file.name: file.read_bytes() for file in first[1].iterdir()}
    assert files == {file.name: file.read_bytes() for file in second[1].iterdir()}
    # Kaggle drops sub-folders; everything named in the manifest lies flat beside it.
    manifest = json.loads(files["manifest.json"])
    named = [model["file"] for part in ("stage1", "members") for run in manifest[part] for model in run["models"]]
    assert sorted(named) == sorted(set(files) - {"manifest.json"})
    assert len(named) == 6


def test_the_kernel_carries_the_package_without_the_phantom(trained: Prepared, tmp_path: Path) -> None:
    kernel, _ = build(trained, tmp_path)
    package = re.search(r'PACKAGE = "([^"@]+)"', kernel.read_text())
    assert package is not None
    names = zipfile.ZipFile(BytesIO(b64decode(package[1]))).namelist()
    assert "cspine/inference.py" in names
    assert not [name for name in names if "phantom/" in name or not name.endswith(".py")]
    # Kaggle refuses sources of more than 1 MB.
    assert kernel.stat().st_size < 1_000_000


def test_the_rehearsal_equals_predict(trained: Prepared, tmp_path: Path) -> None:
    kernel, weights = build(trained, tmp_path)
    words = ["--kernel", str(kernel), "--weights", str(weights), *trained.overrides]
    done = subprocess.run(
        [sys.executable, "kernels/rehearse.py", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "32 rows, all equal to those of src/predict.py" in done.stdout


def test_the_rehearsal_tells_rows_that_differ(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    files = [tmp_path / name for name in ("ours.csv", "theirs.csv")]
    for file, values in zip(files, ("0.1 0.2 0.3", "0.1 0.4 0.3 0.5"), strict=True):
        file.write_text("\n".join(["row_id,fractured", *values.split()]))
    assert compare(*files) == 1
    assert "2 of 4 rows differ" in capsys.readouterr().err
    assert compare(files[0], files[0]) == 0


def test_faults_cost_only_what_they_must(trained: Prepared, tmp_path: Path) -> None:
    kernel, weights = build(trained, tmp_path)
    words = ["--kernel", str(kernel), "--weights", str(weights), *trained.overrides]
    only = ["SIGTERM in the middle"]
    done = subprocess.run(
        [sys.executable, "kernels/rehearse.py", "--faults", "--only", *only, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 faults cost only what they must" in done.stdout


def test_inputs_are_read_only_in_the_namespace(tmp_path: Path) -> None:
    namespace = usable_namespace()
    if namespace is None:
        pytest.skip("this machine allows no namespaces")
    (tmp_path / "data").mkdir()
    (tmp_path / "box" / "input" / RSNA_NAME).mkdir(parents=True)
    script = tmp_path / "script.py"
    script.write_text(f"open(__import__('sys').argv[2] + '/{RSNA_NAME}/x', 'w')")
    sandbox = Sandbox(tmp_path / "box", {RSNA_NAME: tmp_path / "data"})
    done = subprocess.run(sandbox.command(script, namespace), capture_output=True, text=True, check=False)
    assert "Read-only file system" in done.stderr
    assert not list((tmp_path / "data").iterdir())


def test_the_guard_refuses_connections(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    with socket.create_server(("127.0.0.1", 0)) as server:
        script.write_text(f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}))")
        assert subprocess.run([sys.executable, str(script)], check=False).returncode == 0
        done = subprocess.run([sys.executable, "-c", GUARD, str(script)], capture_output=True, text=True, check=False)
    assert "the rehearsal blocks the network" in done.stderr


def test_metadata_is_what_kaggle_asks_for() -> None:
    kernel = json.loads((ROOT / "kernels/inference/kernel-metadata.json").read_text())
    dataset = json.loads((ROOT / "kernels/weights/dataset-metadata.json").read_text())
    assert kernel["enable_internet"] is False
    assert kernel["enable_gpu"] is True
    assert kernel["code_file"] == "kernel.py"
    assert kernel["competition_sources"] == [RSNA_NAME]
    assert kernel["dataset_sources"] == [dataset["id"]]
    for item in (kernel, dataset):
        # Kaggle takes the slug from the title, and refuses one that differs.
        assert item["id"].split("/")[1] == item["title"].replace(" ", "-")
    assert len(kernel["title"]) >= 5
    assert 6 <= len(dataset["title"]) <= 50
    assert len(dataset["licenses"]) == 1


def test_inference_imports_nothing_that_training_alone_needs() -> None:
    code = (
        "import sys, cspine.submission; from cspine.tasks.base import find_task, list_tasks\n"
        "for task in list_tasks(): find_task(task)\n"
        "print(*{'albumentations', 'matplotlib', 'nibabel', 'tensorboard'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": "src"}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
