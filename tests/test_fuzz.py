"""A small share of what tests/fuzz_dicom.py does, and that its judgement can say no."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import fuzzing
import numpy as np
import pytest
from mutations import KINDS

from cspine.data import pixels

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    return fuzzing.make_seeds(tmp_path_factory.mktemp("seeds"))


def test_damage_in_other_processes_is_refused_or_harmless(seeds):
    # Two rounds over the kinds of damage, one encoding after the other.
    tasks = [
        fuzzing.Task(seeds[index % len(seeds)], kind, index)
        for index, kind in enumerate([*KINDS, *reversed(KINDS)] * 2)
    ]
    results = list(fuzzing.run_tasks(tasks, 2, 60))
    assert [result for result in results if fuzzing.is_violation(result[1])] == []
    labels = {label for _, label in results}
    assert {"identical", "refused", "different: pixel bytes touched"} <= labels


def test_intact_seeds_are_read_and_every_kind_of_damage_changes_bytes(seeds):
    for seed in seeds:
        assert fuzzing.work(fuzzing.Task(seed, "nothing", 0)) == "identical"
    for kind in set(KINDS) - {"nothing"}:
        changed = [fuzzing.damaged(fuzzing.Task(seed, kind, number)) for seed in seeds for number in range(3)]
        original = [fuzzing.read_seed(seed).data for seed in seeds for _ in range(3)]
        assert any(new is not None and new != old for new, old in zip(changed, original, strict=True)), kind


def seed_named(seeds, name):
    return next(seed for seed in seeds if seed.name == name)


def test_a_reader_that_trusts_the_length_is_found_to_invent_pixels(seeds, monkeypatch):
    tasks = [fuzzing.Task(seed_named(seeds, "explicit_signed.dcm"), "excise", number) for number in range(4)]
    assert {fuzzing.work(task) for task in tasks} == {"refused"}
    # The sabotage: whatever the header asks for is said to be there, and what follows the pixels is read as pixels.
    honest = pixels.measure
    monkeypatch.setattr("cspine.data.header.measure", lambda *args: honest(*args[:2], 0, *args[3:]))
    assert {fuzzing.work(task) for task in tasks} == {fuzzing.INVENTED}


@pytest.mark.parametrize(
    ("name", "fault", "label"),
    [
        ("read_header", lambda honest: lambda *args: replace(honest(*args), position_mm=(0.0, 0.0, 0.0)), "MISPLACED"),
        ("read_hu", lambda honest: lambda *args: honest(*args) - np.int16(1), "CHANGED WITHOUT CAUSE"),
        ("read_hu", lambda _: lambda *_: 1 // 0, "CRASHED: ZeroDivisionError"),
        ("load_study", lambda honest: lambda *args: darker(honest(*args)), "NEIGHBOURS CHANGED"),
    ],
)
def test_other_faults_of_a_reader_are_found_too(seeds, monkeypatch, name, fault, label):
    # Damage that the reader need not notice: a byte of the preamble or behind the pixels.
    seed = seed_named(seeds, "rle_unsigned.dcm")
    tasks = [fuzzing.Task(seed, "flip_anywhere", number) for number in range(30)]
    harmless = next(task for task in tasks if fuzzing.work(task) == "identical")
    monkeypatch.setattr(fuzzing, name, fault(getattr(fuzzing, name)))
    found = fuzzing.work(harmless)
    assert found.startswith(label)
    assert fuzzing.is_violation(found)
    assert fuzzing.is_violation(fuzzing.work(replace(harmless, kind="nothing")))


def darker(study):
    return replace(study, volume=study.volume - np.int16(1))


def test_the_command_says_what_it_saw():
    done = subprocess.run(
        [sys.executable, "tests/fuzz_dicom.py", "--count", "18"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "18 files from 18 seeds, 0 treated wrongly" in done.stdout
