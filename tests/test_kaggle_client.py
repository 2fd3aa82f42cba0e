"""The official kaggle client takes what we made, by the commands of kernels/README.md, and sends what we mean.

It talks to a server on loopback; no request leaves the machine, and no real credentials are read.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from kaggle_server import Arrived, kaggle_server
from test_kernel import build
from tiny_pipeline import Prepared

from cspine.paths import RSNA_NAME

if find_spec("kaggle") is None:
    pytest.skip("no kaggle client: pip install -r requirements-dev.txt", allow_module_level=True)

ROOT = Path(__file__).parents[1]
USER, KEY = "somebody", "no-key-of-anybody"


@pytest.fixture(scope="module")
def kernels(trained: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of kernels/ with a kernel, a bundle and a user name in it."""
    folder = tmp_path_factory.mktemp("client") / "kernels"
    for name in ("inference/kernel-metadata.json", "weights/dataset-metadata.json"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text((ROOT / "kernels" / name).read_text().replace("INSERT_KAGGLE_USERNAME", USER))
    kernel, weights = build(trained, folder.parent)
    kernel.rename(folder / "inference" / "kernel.py")
    shutil.copytree(weights, folder / "weights", dirs_exist_ok=True)
    return folder


@pytest.fixture
def arrived() -> Iterator[Arrived]:
    with kaggle_server() as arrived:
        yield arrived


def commands() -> dict[str, list[str]]:
    """The kaggle commands in kernels/README.md, by their first two words, with a user name in the place of USER."""
    text = (ROOT / "kernels" / "README.md").read_text()
    found = [shlex.split(line.replace("<USER>", USER)) for line in re.findall(r"^kaggle .*$", text, re.M)]
    return {" ".join(words[1:3]): words[1:] for words in found}


def run_client(command: str, arrived: Arrived, kernels: Path, tmp_path: Path) -> str:
    """Run a command of the README; what it prints."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "KAGGLE_CONFIG_DIR": str(tmp_path)}
    environment |= {"KAGGLE_USERNAME": USER, "KAGGLE_KEY": KEY, **arrived.environment}
    words = [sys.executable, "-m", "kaggle", *commands()[command]]
    done = subprocess.run(
        words, cwd=kernels.parent, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_kernel_is_pushed_as_one_file_without_internet(kernels: Path, arrived: Arrived, tmp_path: Path) -> None:
    assert "Kernel version 1 successfully pushed" in run_client("kernels push", arrived, kernels, tmp_path)
    (sent,) = arrived.bodies("SaveKernel")
    assert sent["text"] == (kernels / "inference" / "kernel.py").read_text()
    assert len(sent["text"]) < 1_000_000
    assert sent["enableInternet"] is False
    assert sent["enableGpu"] is True
    assert sent["isPrivate"] is True
    assert sent["slug"] == f"{USER}/cspine-fracture-inference"
    assert (sent["language"], sent["kernelType"]) == ("python", "script")
    assert sent["datasetDataSources"] == [f"{USER}/cspine-fracture-weights"]
    assert sent["competitionDataSources"] == [RSNA_NAME]
    assert arrived.users == {f"Basic {b64encode(f'{USER}:{KEY}'.encode()).decode()}"}


def test_the_dataset_arrives_whole(kernels: Path, arrived: Arrived, tmp_path: Path) -> None:
    run_client("datasets create", arrived, kernels, tmp_path)
    (sent,) = arrived.bodies("CreateDataset")
    here = {file.name: file.read_bytes() for file in (kernels / "weights").iterdir()}
    del here["dataset-metadata.json"]
    assert arrived.files == here
    assert {file["token"] for file in sent["files"]} == {f"token of {name}" for name in here}
    told = {body["name"]: body["contentLength"] for body in arrived.bodies("StartBlobUpload")}
    assert told == {name: len(content) for name, content in here.items()}
    assert sent["isPrivate"] is True
    assert (sent["ownerSlug"], sent["slug"]) == (USER, "cspine-fracture-weights")
    # What the kernel looks for is there, and all that it names.
    manifest = json.loads(here["manifest.json"])
    named = [model["file"] for part in ("stage1", "members") for run in manifest[part] for model in run["models"]]
    assert set(named) == here.keys() - {"manifest.json"}


def test_the_kernels_output_is_submitted(kernels: Path, arrived: Arrived, tmp_path: Path) -> None:
    assert "Successfully submitted" in run_client("competitions submit", arrived, kernels, tmp_path)
    (sent,) = arrived.bodies("CreateCodeSubmission")
    assert sent["competitionName"] == RSNA_NAME
    assert (sent["kernelOwner"], sent["kernelSlug"], sent["kernelVersion"]) == (USER, "cspine-fracture-inference", 1)
    assert sent["fileName"] == "submission.csv"
