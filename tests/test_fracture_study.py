"""fracture/study on tiny studies whose level maps are made from their masks: trained, predicted, refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_fracture_sequence import Levels
from tiny_pipeline import ALONE

from cspine.aggregate import overall
from cspine.anatomy import TARGETS
from cspine.config import Aggregate, Config, Train
from cspine.data.cache import open_study
from cspine.data.level_cells import UNKNOWN
from cspine.errors import UserError
from cspine.level_maps import LevelMap, level_map, write_level_map
from cspine.models.registry import create_model
from cspine.paths import read_json
from cspine.tables import STUDY, read_study_table
from cspine.tasks import fracture_sequence
from cspine.tasks.base import StudyImages
from cspine.tasks.fracture_study import Task
from cspine.training import train_fold

CPU = torch.device("cpu")


def study_config(levels: Levels) -> Config:
    return replace(
        levels.config,
        name="study",
        task="fracture/study",
        model=replace(levels.config.model, name="study_classifier"),
        train=Train(epochs=25, batch_size=2, max_rate=1e-2),
    )


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> Levels:
    made = Levels(tmp_path_factory.mktemp("study"))
    for fold in (0, 1):
        train_fold(study_config(made), fold, ALONE)
    return made


def test_it_learns_which_level_is_fractured(levels: Levels) -> None:
    table = read_study_table(levels.folder / "oof" / "study" / "oof.csv").set_index(STUDY)
    labels = levels.data.labels.set_index(STUDY).loc[table.index]
    assert sorted(table.index) == sorted(levels.data.uids)
    for level in ("patient_overall", "C1", "C2"):
        positive = labels[level] == 1
        assert table.loc[positive, level].min() > table.loc[~positive, level].max(), level
    assert (table["C3"] == 0).all()  # no study shows it: its prevalence


def infer(config: Config, uid: str, found: LevelMap) -> np.ndarray:
    study, models, facts = open_study(config, uid), [], []
    for fold in (0, 1):
        folder = Path(config.paths.oof) / "study" / f"fold{fold}"
        models.append(create_model(config.model, 1, 8).eval())
        models[-1].load_state_dict(load_file(folder / "weights.safetensors"))
        facts.append(read_json(folder / "done.json")["facts"])
    images = StudyImages(np.array(study.volume), study.geometry.z_mm, study.geometry.spacing_mm)
    return Task.infer(models, config, images.with_stage1(None, lambda: found), facts, CPU)


def test_inference_is_the_mean_of_the_folds_and_a_missing_level_gets_the_prior(levels: Levels) -> None:
    config, uid = study_config(levels), levels.data.uids[0]
    table = read_study_table(levels.folder / "oof" / "study" / "oof.csv").set_index(STUDY)
    fold = int(table.loc[uid, "fold"])
    model = create_model(config.model, 1, 8).eval()
    folder = levels.folder / "oof" / "study"
    model.load_state_dict(load_file(folder / f"fold{1 - fold}" / "weights.safetensors"))
    samples = Task(config, fold).prediction_samples()
    number = [study.uid for study in samples.studies].index(uid)
    sample = samples[number, -1]
    with torch.inference_mode():
        other = model(sample["image"][None], sample["found"][None])[0].sigmoid().numpy()
    whole = infer(config, uid, levels.map_of(uid))
    mean = (table.loc[uid, ["C1", "C2"]].to_numpy(float) + other[1:3]) / 2
    assert whole[1:3] == pytest.approx(mean, abs=1e-5)
    missing = infer(config, uid, levels.map_of(uid, but=1))
    priors = [read_json(folder / f"fold{k}" / "done.json")["facts"]["priors"] for k in (0, 1)]
    assert missing[1] == pytest.approx(np.mean([prior["C1"] for prior in priors]))
    assert missing[2] == pytest.approx(whole[2], abs=1e-5)
    nothing = infer(config, uid, level_map(np.zeros((7, 8, 12, 12)), np.arange(8.0)[::-1], 48.0))
    assert nothing == pytest.approx([np.mean([prior[target] for prior in priors]) for target in TARGETS])


def test_the_patient_is_between_its_own_head_and_the_levels(levels: Levels) -> None:
    config, uid = study_config(levels), levels.data.uids[1]
    rows = [
        infer(replace(config, aggregate=Aggregate(overall_head=share)), uid, levels.map_of(uid))
        for share in (0.0, 0.5, 1.0)
    ]
    assert rows[0][0] == pytest.approx(overall(rows[0][1:]))
    assert rows[1][0] == pytest.approx((rows[0][0] + rows[2][0]) / 2)
    assert rows[2][0] != pytest.approx(rows[0][0], abs=1e-4)


def test_a_sample_holds_the_levels_of_one_patient_each_in_its_place(levels: Levels) -> None:
    config, uid = study_config(levels), levels.data.uids[4]
    file = levels.map_file(uid)
    try:
        write_level_map(file, levels.map_of(uid, but=1))
        task = Task(config, None)
        samples = task.training_samples()
        single = fracture_sequence.Task.training_samples(task)
        for number, study in enumerate(samples.studies):
            sample = samples[number, 5]
            expected = [0, 1, 0, 0, 0, 0, 0] if study.uid == uid else [1, 1, 0, 0, 0, 0, 0]
            assert sample["found"].tolist() == expected
            assert sample["fractured"].tolist() == task.labels.loc[study.uid].tolist()
            assert not sample["image"][sample["found"] == 0].any()
            own = [n for n, level in enumerate(single.levels) if single.studies[level.study].uid == study.uid]
            for level, position in zip(np.flatnonzero(expected), own, strict=True):
                assert torch.equal(sample["image"][level], single[position, 5]["image"])
                assert torch.equal(sample["slices"][level], single[position, 5]["slices"])
    finally:
        write_level_map(file, levels.map_of(uid))


def test_a_study_without_levels_is_not_trained_on_and_gets_the_priors(levels: Levels) -> None:
    config, uid = study_config(levels), levels.data.uids[5]
    file = levels.map_file(uid)
    empty = levels.map_of(uid)
    empty.probabilities[:] = 0
    try:
        write_level_map(file, empty)
        assert len(Task(config, None).training_samples()) == 7
        fold = int(read_study_table(levels.folder / "oof" / "study" / "oof.csv").set_index(STUDY).loc[uid, "fold"])
        task = Task(config, fold)
        table = task.predictions(np.zeros((len(task.prediction_samples()), 8 + 7 * 4), np.float32)).set_index(STUDY)
        assert table.loc[uid, list(TARGETS)].tolist() == pytest.approx([task.priors[target] for target in TARGETS])
        assert (table.loc[table.index != uid, "C1"] == 0.5).all()
    finally:
        write_level_map(file, levels.map_of(uid))


def test_only_levels_found_and_images_known_cost_anything(levels: Levels) -> None:
    config = study_config(levels)
    task = Task(replace(config, crop=replace(config.crop, boxes=1.0)), None)
    outputs = torch.randn(2, 8 + 28, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found, slices = torch.zeros(2, 7), torch.full((2, 7, 4), UNKNOWN)
    found[0, :2], found[1, 1] = 1, 1
    slices[0, 0, 2], slices[1, 1] = 1, 0
    slices[1, 6] = 1  # of a level that is not found
    weight = torch.cat([torch.ones(2, 1), found], dim=1)
    task.loss(outputs, {"fractured": torch.ones(2, 8), "weight": weight, "slices": slices}).backward()
    assert outputs.grad is not None
    moved = outputs.grad != 0
    assert moved[:, 0].all()
    assert moved[:, 1:8].equal(found > 0)
    images = moved[:, 8:].view(2, 7, 4)
    assert images.sum() == 5
    assert images[0, 0].tolist() == [False, False, True, False]
    assert images[1, 1].all()


def test_cells_of_boxes_count_only_where_they_are_known(levels: Levels) -> None:
    config = study_config(levels)
    changed = replace(config, crop=replace(config.crop, boxes=1.0), model=replace(config.model, cells=True))
    task = Task(changed, None)
    samples = task.training_samples()
    number = next(n for n, study in enumerate(samples.studies) if study.uid == levels.data.uids[0])
    batch = {key: value[None] for key, value in samples[number, -1].items()}
    # C1 of the first study: its third image has the box, next to which nothing is known.
    assert batch["cells"].shape == (1, 7, 4, 4, 4)
    assert [sorted(set(part.flatten().tolist())) for part in batch["cells"][0, 0]] == [[0], [-1], [-1, 1], [-1]]
    outputs = torch.randn(1, 8 + 7 * 4 + 7 * 4 * 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    task.loss(outputs, batch).backward()
    assert outputs.grad is not None
    moved = outputs.grad[0, 8 + 28 :].view(7, 4, 4, 4)
    truth = batch["cells"][0]
    assert torch.equal(moved != 0, (truth != UNKNOWN) & (batch["found"][0] > 0)[:, None, None, None])
    assert (moved[truth == 1] < 0).all()
    assert (moved[truth == 0] >= 0).all()
    model = task.model().eval()
    with torch.inference_mode():
        assert model(batch["image"], batch["found"]).shape == outputs.shape


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"crop": 2.0}, r"set crop\.negatives=null"), ({"model": "sequence_classifier"}, "needs model.name=study")],
)
def test_what_it_cannot_do_is_refused(levels: Levels, changes: dict, told: str) -> None:
    config = study_config(levels)
    if "crop" in changes:
        config = replace(config, crop=replace(config.crop, negatives=changes["crop"]))
    else:
        config = replace(config, model=replace(config.model, name=changes["model"]))
    with pytest.raises(UserError, match=told):
        Task(config, 0)
