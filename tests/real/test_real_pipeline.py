"""prepare, predict and the built kernel on a real head and neck; what phantom models say of it is not judged here."""

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from test_real_dicom import pytestmark, unpack  # noqa: F401 - pytestmark skips these tests too
from tiny_pipeline import Prepared

from cspine.data.cache import cached_studies, open_study
from cspine.submission import all_rows
from cspine.tables import write_table

ROOT = Path(__file__).parents[2]
UID = "1.2.visible.human"


def command(*words: str) -> str:
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_visible_human_goes_through_the_whole_chain(tmp_path: Path) -> None:
    trained = Prepared(tmp_path)
    trained.train()
    trained.ensemble()
    unpacked = unpack("visible_human_male_head.tar.gz", tmp_path / "archive")
    shutil.move(next(path for path in unpacked.iterdir() if path.is_dir()), trained.test_images / UID)
    write_table(all_rows([UID]), trained.data.root / "test.csv")

    assert "1 studies prepared (245 slices" in command("src/prepare.py", "--split", "test", *_prepare_words(trained))
    assert UID in cached_studies(trained.fracture)
    assert open_study(trained.fracture, UID).geometry.spacing_mm == pytest.approx(1.0)

    output = tmp_path / "submission.csv"
    told = command("src/predict.py", "--out", str(output), *trained.overrides)
    assert "1 studies predicted, 0 with the prior" in told
    rows = pd.read_csv(output)
    assert rows["row_id"].tolist() == all_rows([UID])["row_id"].tolist()
    assert rows["fractured"].between(0, 1).all()

    places = ["--kernel", str(tmp_path / "kernel.py"), "--weights", str(tmp_path / "weights")]
    command("kernels/build.py", *places, *trained.overrides)
    told = command("kernels/rehearse.py", *places, "--expected", str(output), *trained.overrides)
    assert "8 rows, all equal to those of src/predict.py" in told


def _prepare_words(trained: Prepared) -> list[str]:
    settings = trained.fracture.preprocess
    return [*trained.overrides, f"preprocess.field_mm={settings.field_mm}", f"preprocess.size_px={settings.size_px}"]
