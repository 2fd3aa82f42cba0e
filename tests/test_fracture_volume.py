"""fracture/volume and fracture/level_volume on tiny studies: trained, predicted, about the levels, refused."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_fracture_sequence import Levels
from test_volumes import STILL
from tiny_pipeline import ALONE

from cspine.aggregate import overall
from cspine.anatomy import LEVELS, TARGETS
from cspine.config import Aggregate, Augment, Config, Crop, Model, Train, Volume
from cspine.data.cache import open_study
from cspine.data.stacks import stack_window
from cspine.errors import UserError
from cspine.level_maps import LevelMap
from cspine.models.registry import create_model
from cspine.paths import read_json
from cspine.tables import STUDY, read_study_table
from cspine.tasks.base import StudyImages, find_task
from cspine.tasks.fracture_volume import Task
from cspine.training import train_fold


def stack_config(levels: Levels) -> Config:
    return replace(
        levels.config,
        name="stack",
        task="fracture/volume",
        stage1=None,
        volume=Volume(voxel_mm=2.0, window_px=(16, 32, 32)),
        volume_augment=STILL,
        model=Model(name="volume_classifier", width=8, dropout=0.0),
        train=Train(epochs=4, batch_size=4, max_rate=1e-2),
    )


def level_config(levels: Levels) -> Config:
    return replace(
        levels.config,
        name="crops",
        task="fracture/level_volume",
        crop=Crop(slices=8, margin_mm=0.0, side_mm=32.0),
        augment=Augment(share=0.0),
        model=Model(name="level_volume_classifier", width=4, dropout=0.0),
        train=Train(epochs=20, batch_size=4, max_rate=1e-2),
    )


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> Levels:
    return Levels(tmp_path_factory.mktemp("volume"))


@pytest.fixture(scope="module")
def trained(levels: Levels) -> Levels:
    for config in (stack_config(levels), level_config(levels)):
        for fold in (0, 1):
            train_fold(config, fold, ALONE)
    return levels


def test_it_learns_which_level_is_fractured(trained: Levels) -> None:
    table = read_study_table(trained.folder / "oof" / "crops" / "oof.csv").set_index(STUDY)
    labels = trained.data.labels.set_index(STUDY).loc[table.index]
    assert sorted(table.index) == sorted(trained.data.uids)
    for level in ("patient_overall", "C1", "C2"):
        positive = labels[level] == 1
        assert table.loc[positive, level].min() > table.loc[~positive, level].max(), level


def test_it_learns_whole_stacks_by_heart(levels: Levels) -> None:
    # Four studies a fold do not teach what C1 and C2 are; that the right studies have the right labels, all eight show.
    config = replace(stack_config(levels), name="heart", train=Train(epochs=36, batch_size=4, max_rate=1e-2))
    train_fold(config, None, ALONE)
    models, facts = load(config, ("full",))
    rows = [Task.infer(models, config, images_of(config, uid), facts, torch.device("cpu")) for uid in levels.data.uids]
    labels = levels.data.labels.set_index(STUDY).loc[levels.data.uids]
    for number, target in enumerate(TARGETS[:3]):
        found, positive = np.array(rows)[:, number], labels[target].to_numpy() == 1
        assert found[positive].min() > found[~positive].max(), (target, found)


def images_of(config: Config, uid: str) -> StudyImages:
    study = open_study(config, uid)
    return StudyImages(np.array(study.volume), study.geometry.z_mm, study.geometry.spacing_mm)


def load(config: Config, folds: Sequence[str] = ("fold0", "fold1")) -> tuple[list[torch.nn.Module], list[dict]]:
    models, facts = [], []
    for fold in folds:
        folder = Path(config.paths.oof) / config.name / fold
        models.append(create_model(config.model, 1, find_task(config.task).outputs))
        models[-1].load_state_dict(load_file(folder / "weights.safetensors"))
        facts.append(read_json(folder / "done.json")["facts"])
    return [model.eval() for model in models], facts


def infer(config: Config, uid: str, found: LevelMap | None = None) -> np.ndarray:
    images = images_of(config, uid)
    if found is not None:
        images = images.with_stage1(None, lambda: found)
    models, facts = load(config)
    return find_task(config.task).infer(models, config, images, facts, torch.device("cpu"))


def test_the_patient_is_between_its_own_head_and_the_levels(trained: Levels) -> None:
    config, uid = stack_config(trained), trained.data.uids[2]
    rows = {share: infer(replace(config, aggregate=Aggregate(overall_head=share)), uid) for share in (0, 0.25, 1)}
    assert rows[0][0] == pytest.approx(overall(rows[0][1:]))
    study = open_study(config, uid)
    window = stack_window(study.volume, study.geometry.z_mm, float(study.geometry.z_mm[[0, -1]].mean()), config)
    with torch.inference_mode():
        heads = [model(torch.from_numpy(window)[None])[0, 0].sigmoid() for model in load(config)[0]]
    assert rows[1][0] == pytest.approx(float(torch.stack(heads).mean()), abs=1e-5)
    assert rows[0.25][0] == pytest.approx(0.25 * rows[1][0] + 0.75 * rows[0][0], abs=1e-6)


def test_inference_of_a_study_is_the_mean_of_what_its_folds_say(trained: Levels) -> None:
    config = stack_config(trained)
    for fold in (0, 1):
        task = Task(config, fold)
        models = load(config)[0]
        samples = task.prediction_samples()
        with torch.inference_mode():
            logits = [model(torch.stack([samples[n, -1]["image"] for n in range(len(samples))])) for model in models]
        both = torch.stack(logits).sigmoid().mean(0)
        told = task.predictions(logits[fold].numpy())
        table = read_study_table(trained.folder / "oof" / "stack" / "oof.csv").set_index(STUDY).loc[told[STUDY]]
        assert np.allclose(told[list(LEVELS)], table[list(LEVELS)], atol=1e-5)
        for study, expected in zip(task.predicted, both, strict=True):
            assert infer(config, study.uid)[1:] == pytest.approx(expected[1:].numpy(), abs=1e-5)


def test_a_level_that_stage1_does_not_map_gets_the_prior_and_is_not_trained_on(trained: Levels) -> None:
    config = replace(stack_config(trained), stage1="maps")
    samples = Task(config, None).training_samples()
    assert (samples[0, -1]["weight"] > 0).tolist() == [True] * 3 + [False] * 5
    uid = trained.data.uids[0]
    whole, missing = (infer(config, uid, trained.map_of(uid, but)) for but in (0, 1))
    priors = [fact["priors"]["C1"] for fact in load(config)[1]]
    assert missing[1] == pytest.approx(np.mean(priors))
    assert missing[1] != pytest.approx(whole[1], abs=1e-3)
    unknown = Task(stack_config(trained), None).training_samples()
    assert (unknown[0, -1]["weight"] > 0).all()


def test_levels_that_are_not_judged_cost_nothing(levels: Levels) -> None:
    task = Task(stack_config(levels), None)
    outputs = torch.randn(3, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    weight = torch.ones(3, 8)
    weight[1, 3], weight[2, 1:] = 0, 0
    task.loss(outputs, {"fractured": torch.ones(3, 8), "weight": weight}).backward()
    assert outputs.grad is not None
    assert (outputs.grad != 0).equal(weight > 0)


def test_the_patient_counts_as_much_as_the_levels() -> None:
    outputs, truth = torch.zeros(2, 8), torch.zeros(2, 8)
    config = Config(name="n", task="fracture/volume")
    both = Task.loss(type("T", (), {"config": config})(), outputs, {"fractured": truth, "weight": torch.ones(2, 8)})
    assert float(both) == pytest.approx(2 * np.log(2))


def test_training_windows_lie_where_the_plain_one_does_and_follow_from_their_seed(levels: Levels) -> None:
    config = stack_config(levels)
    samples = Task(config, None).training_samples()
    plain, idle = (samples[0, seed]["image"].float() for seed in (-1, 3))
    assert (plain - idle).abs().mean() < 3
    changed = replace(config, volume_augment=replace(STILL, gain=0.3, rotate_deg=10))
    samples = Task(changed, None).training_samples()
    assert torch.equal(samples[0, 3]["image"], samples[0, 3]["image"])
    assert not torch.equal(samples[0, 3]["image"], samples[0, 4]["image"])
    assert torch.equal(samples[0, -1]["image"].float(), plain)


@pytest.mark.parametrize(
    ("task", "changes", "told"),
    [
        ("stack", {"model": Model()}, "needs model.name=volume_classifier"),
        ("stack", {"stage1": "v"}, r"needs the level maps"),
        ("crops", {"model": Model(name="sequence_classifier")}, "needs model.name=level_volume_classifier"),
        ("crops", {"crop": Crop(boxes=0.5)}, r"set crop\.boxes=0"),
        ("crops", {"stage1": None}, "the key 'stage1'"),
        ("stack", {"augment": Augment(mixup=0.2)}, r"set augment\.mixup=0"),
        ("crops", {"augment": Augment(mixup=0.2)}, r"not transformed by augment\.mixup"),
    ],
)
def test_what_it_cannot_do_is_refused(levels: Levels, task: str, changes: dict, told: str) -> None:
    config = {"stack": stack_config, "crops": level_config}[task](levels)
    with pytest.raises(UserError, match=told):
        find_task(config.task)(replace(config, **changes), 0).training_samples()


@pytest.mark.parametrize("task", ["stack", "crops"])
def test_neighbours_are_refused(levels: Levels, task: str) -> None:
    config = {"stack": stack_config, "crops": level_config}[task](levels)
    with pytest.raises(UserError, match=r"set data\.neighbours=0"):
        find_task(config.task)(replace(config, data=replace(config.data, neighbours=1)), 0)
