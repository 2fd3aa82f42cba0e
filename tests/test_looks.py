"""What each head tells that it sees of a level: the logit is its own, the planes lie where the frame says."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from test_fracture_sequence import Levels
from test_fracture_study import study_config
from test_fracture_volume import level_config, stack_config
from tiny_pipeline import ALONE

from cspine.anatomy import LEVELS, TARGETS
from cspine.config import Config, Train
from cspine.data.cache import open_study
from cspine.data.level_cells import CELL_PX, cells_per_side
from cspine.engine.forward import model_inputs
from cspine.errors import UserError
from cspine.inference import LoadedMember, load_fold
from cspine.level_maps import run_level_map
from cspine.look_heat import look_heat
from cspine.tables import STUDY, read_folds, read_labels, read_study_table, write_table
from cspine.tasks.base import Look, StudyImages, find_task
from cspine.training import train_fold
from cspine.worst import _outline, draw_worst

CPU = torch.device("cpu")
SHORT = Train(epochs=1, batch_size=2)
HEADS = ("sequence", "study", "crops", "stack", "about")


def head(levels: Levels, name: str) -> Config:
    made = {
        "sequence": lambda: levels.config,
        "study": lambda: study_config(levels),
        "crops": lambda: level_config(levels),
        "stack": lambda: stack_config(levels),
        "about": lambda: replace(stack_config(levels), stage1="maps"),
    }[name]()
    return replace(made, name=name, train=SHORT)


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> Levels:
    made = Levels(tmp_path_factory.mktemp("looks"))
    studies = [open_study(made.config, uid) for uid in made.data.uids]
    rows = [
        pd.DataFrame(study.presence.astype(float), columns=list(LEVELS)).assign(
            **{STUDY: study.uid, "file_number": study.geometry.file_numbers, "z_mm": study.geometry.z_mm}
        )
        for study in studies
        if study.presence is not None
    ]
    write_table(pd.concat(rows), made.folder / "oof" / "maps" / "slices.parquet")
    for name in HEADS:
        train_fold(head(made, name), 0, ALONE)
    return made


def held_out(levels: Levels) -> str:
    folds = read_folds(levels.folder / "in" / "folds.csv")
    return str(folds.loc[folds["fold"] == 0].iloc[0, 0])


def loaded(levels: Levels, name: str) -> tuple[LoadedMember, StudyImages]:
    config = head(levels, name)
    study = open_study(config, held_out(levels))
    images = StudyImages(np.array(study.volume), study.geometry.z_mm, study.geometry.spacing_mm)
    found = partial(run_level_map, levels.folder / "oof" / "maps", study.uid, study.geometry.z_mm)
    member = load_fold(levels.folder / "oof", name, 0, CPU)
    return replace(member, config=config), images.with_stage1(None, found if config.stage1 else None)


def look_at(levels: Levels, name: str, level: int) -> Look | None:
    return look_by(*loaded(levels, name), level)


def look_by(member: LoadedMember, images: StudyImages, level: int) -> Look | None:
    task = find_task(member.config.task)
    return task.look(member.models[0], member.config, images, member.facts[0], level, CPU)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("level", [0, 1])
def test_the_logit_that_it_names_is_the_one_the_level_is_judged_by(levels: Levels, name: str, level: int) -> None:
    member, images = loaded(levels, name)
    look = look_at(levels, name, level)
    assert look is not None
    inputs = {key: torch.from_numpy(values) for key, values in look.batch.items()}
    with torch.inference_mode():
        logits = member.models[0](*model_inputs(inputs))[0]
    assert float(logits[look.output].sigmoid()) == pytest.approx(member.infer(images, CPU)[1 + level], abs=1e-5)


@pytest.mark.parametrize(("name", "most"), [("sequence", {0: 2, 1: 2}), ("study", {0: 2, 1: 1})])
def test_the_image_with_the_greatest_logit_of_its_level_is_shown(levels: Levels, name: str, most: dict) -> None:
    class Told(torch.nn.Module):
        def forward(self, *_: torch.Tensor) -> torch.Tensor:
            logits = torch.zeros(1, 1 + 4) if name == "sequence" else torch.zeros(1, 8 + 7 * 4)
            for level, image in most.items():
                logits[0, 1 + image if name == "sequence" else 8 + 4 * level + image] = 1.0
            return logits

    member, images = loaded(levels, name)
    for level, image in most.items():
        look = look_by(replace(member, models=(Told(),)), images, level)
        assert look is not None
        assert look.shown == image


@pytest.mark.parametrize("name", ["sequence", "study"])
def test_a_model_that_asks_cells_is_hot_where_they_say(levels: Levels, name: str) -> None:
    member, images = loaded(levels, name)
    config = replace(member.config, model=replace(member.config.model, cells=True))
    count, side = config.crop.slices, cells_per_side(config.data.image_size_px)
    level, image, row, column = 1, 2, side - 1, 0
    levels_before, told = (0, 1 + count) if name == "sequence" else (level, 8 + 7 * count)

    class Told(torch.nn.Module):
        def forward(self, *_: torch.Tensor) -> torch.Tensor:
            cells = torch.full((1 if name == "sequence" else 7, count, side, side), -9.0)
            cells[levels_before, image, row, column] = 1.0
            return torch.cat([torch.zeros(told), cells.flatten()])[None]

    look = look_by(replace(member, models=(Told(),), config=config), images, level)
    assert look is not None
    assert look.cells is not None
    assert look.cells.shape == (count, side, side)
    heat = look_heat(Told(), look, CPU)
    assert heat.shape == (count, *look.batch["image"].shape[-2:])
    assert heat.max() == pytest.approx(1 / (1 + np.exp(-1.0)), abs=1e-3)
    plane, y, x = np.unravel_index(heat.argmax(), heat.shape)
    assert plane == image
    # A corner is as hot as its cell; between middles of cells heat falls off.
    assert (y // CELL_PX, x // CELL_PX) == (row, column)
    assert heat[plane, row * CELL_PX, 2 * CELL_PX] < 0.01


@pytest.mark.parametrize("name", ["crops", "stack"])
def test_a_head_that_judges_all_planes_as_one_names_none(levels: Levels, name: str) -> None:
    look = look_at(levels, name, 0)
    assert look is not None
    assert look.shown is None


@pytest.mark.parametrize("name", ["sequence", "study", "crops", "about"])
def test_a_level_that_is_not_found_is_not_seen(levels: Levels, name: str) -> None:
    assert look_at(levels, name, 4) is None


@pytest.mark.parametrize("name", HEADS)
def test_the_bone_lies_where_frame_and_z_say(levels: Levels, name: str) -> None:
    """Also where stage 1 finds a level aside, so that its crop has the bone aside."""
    member, images = loaded(levels, name)
    if images.level_map is not None:
        found = images.level_map()
        aside = replace(found, probabilities=np.roll(found.probabilities, (1, -1), axis=(2, 3)))
        images = images.with_stage1(None, lambda: aside)
    for level in (0, 1):
        look = look_by(member, images, level)
        assert look is not None
        planes = look.planes(look.batch["image"])
        assert planes.shape[:2] == (len(look.z_mm), 1)
        assert (np.diff(look.z_mm) < 0).all()
        inside = (look.z_mm <= images.z_mm[0]) & (look.z_mm >= images.z_mm[-1])
        assert inside.sum() >= 3
        for plane, z_mm in zip(planes[inside, 0], look.z_mm[inside], strict=True):
            square = images.volume[np.abs(images.z_mm - z_mm).argmin(), 0]
            assert edges(plane, look.frame) == pytest.approx(edges(square, (0.0, 1.0, 0.0, 1.0)), abs=0.05)


def edges(image: np.ndarray, frame: tuple[float, float, float, float]) -> list[float]:
    """Of the bone: left, right, top, bottom, as shares of the cached square."""
    left, right, top, bottom = frame
    rows, columns = np.nonzero(image > 130)
    x, y = ((np.array([found.min(), found.max() + 1])) for found in (columns, rows))
    return [*(left + x / image.shape[1] * (right - left)), *(top + y / image.shape[0] * (bottom - top))]


def test_the_outline_is_the_mask_that_the_head_sees(levels: Levels) -> None:
    member, images = loaded(levels, "sequence")
    study = open_study(member.config, held_out(levels))
    look = look_by(member, images, 1)
    assert look is not None
    left, right, top, bottom = look.frame
    for mask, z_mm in zip(look.batch["image"][0, :, -1], look.z_mm, strict=True):
        outline = _outline(study, images, member.config, 1, float(z_mm))
        assert outline is not None
        side, size = len(outline), len(mask)
        rows = ((top + (np.arange(size) + 0.5) / size * (bottom - top)) * side).astype(int)
        columns = ((left + (np.arange(size) + 0.5) / size * (right - left)) * side).astype(int)
        # One is interpolated within the plane and the other not.
        assert ((outline[np.ix_(rows, columns)] > 0.5) == (mask > 127)).mean() > 0.9
    bare = replace(images, level_map=None)
    with_mask = _outline(study, bare, member.config, 1, float(images.z_mm[5]))
    assert np.array_equal(with_mask, study.levels[5] == 2)
    assert _outline(replace(study, presence=None), bare, member.config, 1, 0.0) is None


@pytest.fixture(scope="module")
def whole(levels: Levels) -> Levels:
    for name in ("sequence", "stack"):
        train_fold(head(levels, name), 1, ALONE)
    return levels


@pytest.mark.parametrize("name", ["sequence", "stack"])
def test_the_worst_are_drawn_for_heads_in_space_too(whole: Levels, name: str) -> None:
    folder = draw_worst(name, whole.config, 2)
    table = pd.read_csv(folder.parent / "worst.csv")
    assert [folder.parent / picture for picture in table["picture"]] == sorted(folder.glob("*.png"))
    assert len(table) == 2


def test_a_study_is_looked_at_by_the_fold_that_held_it_out(whole: Levels) -> None:
    run = whole.folder / "oof" / "stack"
    table = read_study_table(run / "oof.csv")
    labels = read_labels(whole.data.root / "train.csv").set_index(STUDY).loc[table[STUDY], list(TARGETS)]
    row = int(np.flatnonzero(table["fold"] == 1)[0])
    table[list(TARGETS)] = labels.to_numpy(float)
    table.loc[row, list(TARGETS)] = 1 - labels.iloc[row].to_numpy(float)
    write_table(table, run / "oof.csv")
    weights = [run / f"fold{fold}" / "weights.safetensors" for fold in (0, 1)]
    kept = [file.read_bytes() for file in weights]
    try:
        weights[0].write_bytes(b"of another fold")
        assert draw_worst("stack", whole.config, 1).is_dir()
        weights[0].write_bytes(kept[0])
        weights[1].write_bytes(b"of this fold")
        with pytest.raises(UserError, match=r"fold1/weights\.safetensors: its SHA-256"):
            draw_worst("stack", whole.config, 1)
    finally:
        for file, content in zip(weights, kept, strict=True):
            file.write_bytes(content)
