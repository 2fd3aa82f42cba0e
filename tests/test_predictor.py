"""What fails is left out: a model of its run, a run of the blend; and plans leave out what they say."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_pipeline import Prepared

from cspine.budget import Plan
from cspine.bundle import Bundle, from_runs
from cspine.data.cache import open_study
from cspine.errors import UserError
from cspine.inference import LoadedMember, load_run
from cspine.predictor import Predictor
from cspine.stopwatch import Stopwatch
from cspine.tasks.base import StudyImages

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def bundle(trained: Prepared) -> Bundle:
    return from_runs(trained.oof)


@pytest.fixture
def images(trained: Prepared) -> StudyImages:
    study = open_study(trained.fracture, trained.data.uids[0])
    # The tiny body is its own mirror image; this is not.
    volume = np.random.default_rng(0).integers(0, 255, study.volume.shape, np.uint8)
    return StudyImages(volume, study.geometry.z_mm, study.geometry.spacing_mm)


class Failing(LoadedMember):
    def infer(self, images: StudyImages, device: torch.device) -> np.ndarray:  # noqa: ARG002
        raise RuntimeError("CUDA out of memory\ntried to allocate")


class Wild(LoadedMember):
    """Gives no number in half precision."""

    def infer(self, images: StudyImages, device: torch.device) -> np.ndarray:
        row = super().infer(images, device)
        return row * np.nan if self.config.train.precision != "float32" else row


class Aloof(LoadedMember):
    """Reads nothing of stage 1."""

    def infer(self, images: StudyImages, device: torch.device) -> np.ndarray:  # noqa: ARG002
        return np.full(8, 0.3)


def test_stage_1_is_asked_only_for_what_a_member_reads(bundle: Bundle, images: StudyImages) -> None:
    predictor, watch = Predictor(bundle, CPU), Stopwatch()
    predictor.members = [Aloof(**vars(member)) for member in predictor.members]
    predictor.predict(lambda _: images, watch=watch)
    assert watch.seconds.keys() == {"f", "g"}


def test_the_blend_of_all(trained: Prepared, bundle: Bundle, images: StudyImages) -> None:
    predictor, watch = Predictor(bundle, CPU), Stopwatch()
    seen = images.with_stage1(load_run(trained.oof, "v", CPU).infer(images, CPU))
    rows = [load_run(trained.oof, name, CPU).infer(seen, CPU)[None] for name in ("f", "g")]
    assert np.array_equal(predictor.predict(lambda _: images, watch=watch), predictor.blend.apply(rows)[0])
    assert watch.seconds.keys() == {"v", "f", "g"}
    assert predictor.runs.mirrored == {"g"}
    assert predictor.runs.reads == {"v": (), "f": ("v",), "g": ("v",)}


def test_a_member_that_fails_is_left_out_of_the_blend(bundle: Bundle, images: StudyImages) -> None:
    predictor, told = Predictor(bundle, CPU), []
    expected = predictor.predict(lambda _: images, Plan(dropped=("f",)))
    predictor.members[0] = Failing(**vars(predictor.members[0]))
    found = predictor.predict(lambda _: images, complain=told.append)
    assert np.array_equal(found, expected)
    assert told == ["f is left out: RuntimeError: CUDA out of memory"]
    with pytest.raises(UserError, match="f is left out"):
        predictor.predict(lambda _: images)
    predictor.members[1] = Failing(**vars(predictor.members[1]))
    with pytest.raises(ValueError, match="no member"):
        predictor.predict(lambda _: images, complain=told.append)


def test_plans_leave_out_members_and_mirror_images(bundle: Bundle, images: StudyImages) -> None:
    predictor = Predictor(bundle, CPU)
    whole = predictor.predict(lambda _: images)
    once = predictor.predict(lambda _: images, Plan(views=False))
    alone = predictor.predict(lambda _: images, Plan(views=False, dropped=("f",)))
    assert len({tuple(row) for row in (whole, once, alone)}) == 3
    # The same weights in another model, which shares their memory.
    twin, model = predictor._unmirrored["g"].models[0], predictor.members[1].models[0]
    assert next(twin.parameters()).data_ptr() == next(model.parameters()).data_ptr()
    assert np.array_equal(predictor.predict(lambda _: images), whole)


def test_no_number_in_half_precision_is_tried_in_single(bundle: Bundle, images: StudyImages) -> None:
    predictor, told = Predictor(bundle, CPU), []
    whole = predictor.predict(lambda _: images)
    member = predictor.members[0]
    half = replace(member.config, train=replace(member.config.train, precision="float16"))
    predictor.members[0] = Wild(**{**vars(member), "config": half})
    assert np.array_equal(predictor.predict(lambda _: images, complain=told.append), whole)
    assert told == ["f: no finite number in half precision, once more in single"]


def damaged(trained: Prepared, folder: Path, *files: str) -> Bundle:
    shutil.copytree(trained.oof, folder / "oof")
    for name in files:
        file = folder / "oof" / name / "weights.safetensors"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    return from_runs(folder / "oof")


def test_a_model_that_does_not_load_is_left_out_of_the_mean(
    trained: Prepared, tmp_path: Path, images: StudyImages
) -> None:
    told: list[str] = []
    broken = damaged(trained, tmp_path, "v/fold1", "f/fold0", "g/fold0", "g/fold1")
    with pytest.raises(UserError, match="SHA-256"):
        Predictor(broken, CPU)
    predictor = Predictor(broken, CPU, told.append)
    assert [len(member.models) for member in (*predictor.stage1, *predictor.members)] == [1, 1]
    assert len(predictor.members[0].facts) == 1
    assert told[-1] == "g is left out: none of its models loads"
    assert predictor.blend.without({"g"}).weights == (1.0,)
    assert predictor.runs.order == ["f"]
    found = predictor.predict(partial(lambda _, images: images, images=images), complain=told.append)
    assert ((found > 0) & (found < 1)).all()


def test_without_its_vertebra_run_no_head_answers(trained: Prepared, tmp_path: Path) -> None:
    told: list[str] = []
    with pytest.raises(UserError, match="no member of the blend"):
        Predictor(damaged(trained, tmp_path, "v/fold0", "v/fold1"), CPU, told.append)
    assert "f is left out: it reads v" in told
