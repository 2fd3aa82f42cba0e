"""The rehearsal spoils what it says, and its verdict tells rows that suffered from rows that did not."""

from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from parts.faults import FAULTS, VICTIM, Fault, Tree, make_tree
from parts.sandbox import Ran, Watch
from parts.verdicts import judge
from tiny_pipeline import Prepared

from cspine.anatomy import TARGETS
from cspine.data.dicom import load_study
from cspine.data.study import StudyError

UIDS = ["1.2.826.0.1.3680043.1", "1.2.826.0.1.3680043.2"]


@pytest.fixture
def tree(trained: Prepared, tmp_path: Path) -> Tree:
    (tmp_path / "weights").mkdir()
    for name in ("a", "b"):
        (tmp_path / "weights" / f"{name}.safetensors").write_bytes(b"weights")
    return make_tree(tmp_path / "tree", trained.data.root, tmp_path / "weights", UIDS)


def spoil(tree: Tree, name: str) -> None:
    next(fault for fault in FAULTS if fault.name == name).spoil(tree, 20.0)


def numbers(tree: Tree) -> list[float]:
    """The z of the victim's files in the order of their numbers."""
    return [float(pydicom.dcmread(file).ImagePositionPatient[2]) for file in tree.slices]


@pytest.mark.parametrize(
    ("name", "true"),
    [
        ("a corrupt slice", lambda study, _: [len(study.volume), len(study.skipped)] == [7, 1]),
        ("1,082 slices", lambda study, before: len(study.volume) == 1082 and study.geometry.z_mm[0] == before[0]),
        ("512 x 519", lambda study, _: study.volume.shape == (4, 512, 519)),
        ("z the other way", lambda study, _: len(study.volume) == 8),
    ],
)
def test_a_spoilt_study_is_what_its_name_says_and_can_be_read(
    tree: Tree, trained: Prepared, name: str, true: Callable
) -> None:
    before = numbers(tree)
    spoil(tree, name)
    assert true(load_study(tree.victim), before)
    if name == "z the other way":
        assert numbers(tree) == before[::-1]
    # The victim is a copy: neither a bystander nor the dataset suffers.
    assert len(load_study(trained.test_images / UIDS[0]).volume) == 8
    assert len(load_study(tree.data / "test_images" / UIDS[0]).volume) == 8


def test_an_empty_study_cannot_be_read(tree: Tree) -> None:
    spoil(tree, "an empty study")
    with pytest.raises(StudyError, match="the folder is empty"):
        load_study(tree.victim)


def test_weights_are_spoilt_in_the_copy_alone(tree: Tree, tmp_path: Path) -> None:
    spoil(tree, "a wrong sha256")
    assert (tree.weights / "a.safetensors").read_bytes() != b"weights"
    spoil(tree, "a missing weight file")
    assert not (tree.weights / "a.safetensors").exists()
    assert (tmp_path / "weights" / "a.safetensors").read_bytes() == b"weights"


def test_test_csv_asks_for_every_row(tree: Tree) -> None:
    lines = (tree.data / "test.csv").read_text().splitlines()[1:]
    assert [line.split(",")[0] for line in lines] == tree.asked
    assert len(lines) == 24


PRIORS = {f"{VICTIM}_{target}": "0.1" for target in TARGETS}


def ran(tree: Tree, log: str = "", status: int = 0, **values: str) -> Ran:
    """A run in which every row of a study has the value of it in `values` (one, two, victim)."""
    names = dict(zip(tree.uids, ("one", "two", "victim"), strict=True))
    rows = {f"{uid}_{target}": values.get(names[uid], "0.5") for uid in tree.uids for target in TARGETS}
    return Ran(status, 20.0, log, Watch(tree.asked, 0.2, 2, [], rows))


@pytest.mark.parametrize(
    ("fault", "after", "wrong"),
    [
        (Fault("x", spoil, "prior"), {"victim": "0.1", "log": f"{VICTIM}: empty"}, []),
        (Fault("x", spoil, "prior"), {"victim": "0.1"}, ["no reason in the log"]),
        (Fault("x", spoil, "predicted"), {"victim": "0.1"}, ["the study became prior, not predicted"]),
        (Fault("x", spoil, "same"), {"victim": "0.6"}, ["the study became predicted, not same"]),
        (Fault("x", spoil, "predicted"), {"one": "0.6"}, ["1 other studies have other rows than without the fault"]),
        (Fault("x", spoil, "predicted"), {"two": "0.1"}, ["other studies hold the prior"]),
        (Fault("x", spoil), {"two": "0.1"}, []),
        (Fault("x", spoil, "prior"), {"victim": "0.1", "two": "0.1", "log": "the time is up: 2 studies"}, []),
        (Fault("x", spoil, bystanders=False), {"one": "0.6", "two": "0.7"}, []),
        (Fault("x", spoil), {"status": 1}, ["exit status 1"]),
    ],
)
def test_the_verdict(tree: Tree, fault: Fault, after: dict, wrong: list[str]) -> None:
    assert list(judge(fault, ran(tree, **after), ran(tree), tree, PRIORS).wrong) == wrong


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("row_id,fractured\na,0.5\nb,1\n", None),
        ("row_id,fractured\nb,0.5\na,1\n", "2 rows, not the 2 of test.csv in their order"),
        ("row_id,fractured\na,0.5\n", "1 rows, not the 2 of test.csv in their order"),
        ("row_id,fractured\na,0.5\nb,nan\n", "values outside [0, 1]"),
        ("", "no header row_id,fractured"),
    ],
)
def test_what_is_seen_of_submission_csv(tmp_path: Path, text: str, wrong: str | None) -> None:
    watch = Watch(["a", "b"])
    watch.look(tmp_path / "s.csv", 0.1)
    assert watch.first_s is None
    (tmp_path / "s.csv").write_text(text)
    watch.look(tmp_path / "s.csv", 0.25)
    assert watch.wrong == ([] if wrong is None else [f"after 0.2 s: {wrong}"])
    assert watch.first_s == (0.25 if wrong is None else None)
