"""fracture/recurrent on the encoder of fracture/soft: trained, predicted from its own weights alone, refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_fracture_soft import SeenLevels
from tiny_pipeline import ALONE

from cspine.anatomy import LEVELS, TARGETS
from cspine.bundle import describe_run
from cspine.config import Aggregate, Config, Model, Sequence, Sweep, Train
from cspine.errors import UserError
from cspine.metrics import weighted_log_loss
from cspine.paths import read_json
from cspine.pipeline import Job
from cspine.tables import STUDY, read_slices, write_table
from cspine.tasks.base import StudyImages, find_task, fold_folder
from cspine.tasks.fracture_recurrent import Task
from cspine.training import side_by_side, train_fold


def recurrent(levels: SeenLevels) -> Config:
    model = Model(
        name="recurrent_classifier",
        backbone="test_resnet",
        dropout=0.0,
        pretrained="run:soft",
        sequence=Sequence(recurrent="gru", hidden=8),
    )
    return replace(
        levels.soft(),
        name="recurrent",
        task="fracture/recurrent",
        model=model,
        sweep=Sweep(step_mm=2.0, slices=16),
        aggregate=Aggregate(overall_head=1.0),
        train=Train(epochs=40, batch_size=2, max_rate=1e-2),
    )


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> SeenLevels:
    made = SeenLevels(tmp_path_factory.mktemp("recurrent"))
    for config in (made.soft(), recurrent(made)):
        for fold in (0, 1):
            train_fold(config, fold, ALONE)
    return made


def test_it_learns_which_level_is_fractured_and_the_patient(levels: SeenLevels) -> None:
    levels.require_learned("recurrent", "patient_overall", "C1", "C2")


def test_inference_needs_its_own_weights_alone(levels: SeenLevels) -> None:
    # The features are rounded to float16, now and then to the next one.
    levels.require_same_inference(recurrent(levels), atol=1e-3)
    assert describe_run(levels.folder / "oof", "recurrent").typed_config().reads == ("maps",)


def test_the_encoder_is_that_of_the_same_fold_and_stays_as_it_was(levels: SeenLevels) -> None:
    weights = {
        (run, fold): load_file(levels.folder / "oof" / run / f"fold{fold}" / "weights.safetensors")
        for run in ("soft", "recurrent")
        for fold in (0, 1)
    }
    names = [name for name in weights["soft", 0] if name.startswith("backbone.")]
    assert any("running_mean" in name for name in names)
    for fold in (0, 1):
        ours, source, other = weights["recurrent", fold], weights["soft", fold], weights["soft", 1 - fold]
        assert all(torch.equal(source[name], ours[f"encoder.{name}"]) for name in names)
        assert not all(torch.equal(other[name], ours[f"encoder.{name}"]) for name in names)


def test_the_loss_over_small_batches_is_the_metric(levels: SeenLevels) -> None:
    task = Task(recurrent(levels), 0)
    uid = task.training[1].uid
    task.presence[uid] = task.presence[uid] * (np.arange(7) != 1)  # a level that is not seen does not count
    samples = task.training_samples()
    logits = torch.randn(len(samples), 8, generator=torch.Generator().manual_seed(0))
    probabilities, labels = logits.sigmoid().numpy(), samples.fractured
    seen = [0, 1]  # of all studies: the patient and C1
    assert (samples.weight[:, 3:] == 0).all()
    assert samples.weight[1, 2] == 0
    others = np.full(len(samples), True)
    others[1] = False
    losses = [column_loss(labels[:, j], probabilities[:, j]) for j in seen]
    losses.append(column_loss(labels[others, 2], probabilities[others, 2]))
    single = [
        float(task.loss(logits[number][None], {k: v[None] for k, v in samples[number, 0].items()}))
        for number in range(len(samples))
    ]
    assert np.mean(single) == pytest.approx(np.dot(losses, (7, 1, 1)) / 14, rel=1e-5)


def column_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The metric of one target."""
    return weighted_log_loss(np.tile(labels[:, None], 8), np.tile(probabilities[:, None], 8).astype(float), "column")


def test_a_study_that_shows_no_level_is_not_trained_on_and_gets_the_priors(levels: SeenLevels) -> None:
    config = recurrent(levels)
    file = levels.folder / "oof" / "maps" / "slices.parquet"
    table = read_slices(file)
    try:
        unseen = table[STUDY] == levels.data.uids[5]
        write_table(table.assign(**{level: table[level].where(~unseen, 0.0) for level in LEVELS}), file)
        folds = [Task(config, fold) for fold in (0, 1)]
        assert sorted(len(task.training_samples()) for task in folds) == [3, 4]
        for task in folds:
            made = task.predictions(np.zeros((len(task.prediction_samples()), 8), np.float32)).set_index(STUDY)
            if levels.data.uids[5] in made.index:
                assert len(task.prediction_samples()) == 3
                expected = [task.priors[target] for target in TARGETS]
                assert made.loc[levels.data.uids[5], list(TARGETS)].tolist() == pytest.approx(expected)
    finally:
        write_table(table, file)
    images = levels.images(levels.data.uids[5]).with_stage1(np.zeros((8, 7)))
    facts = read_json(fold_folder(config, 0) / "done.json")["facts"]
    assert levels.infer(config, 0, images) == pytest.approx([facts["priors"][target] for target in TARGETS])


def test_thinner_slices_change_little(levels: SeenLevels) -> None:
    config, uid = recurrent(levels), levels.data.uids[0]
    thick = levels.images(uid)
    thin = StudyImages(
        thick.volume.repeat(3, axis=0), thick.z_mm.repeat(3) + np.tile([1.0, 0.0, -1.0], 8), thick.spacing_mm / 3
    ).with_stage1(levels.presence.repeat(3, axis=0))
    one, other = levels.infer(config, 0, thick), levels.infer(config, 0, thin)
    assert np.abs(one - other).max() < 0.1


def test_the_run_of_the_encoder_is_trained_before_it(levels: SeenLevels) -> None:
    jobs = [Job(config, fold) for config in (levels.soft(), recurrent(levels)) for fold in (0, 1)]
    assert side_by_side(jobs) == [jobs[:2], jobs[2:]]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": {"pretrained": None}}, "set model.pretrained"),
        ({"model": {"name": "slice_classifier"}}, "needs model.name=recurrent_classifier"),
        ({"model": {"pretrained": "run:nowhere"}}, "<the config named nowhere> --fold 0"),
        ({"model": {"backbone": "lcnet_050"}}, "does not fit lcnet_050"),
        ({"data": {"image_size_px": 48}}, r"saw other images \(data.image_size_px: 32 -> 48\)"),
        ({"data": {"centre_share": 0.5}}, "saw other images"),
    ],
)
def test_what_it_cannot_do_is_refused(levels: SeenLevels, changes: dict, told: str) -> None:
    config = recurrent(levels)
    changed = {name: replace(getattr(config, name), **values) for name, values in changes.items()}
    with pytest.raises(UserError, match=told):
        find_task(config.task)(replace(config, **changed), 0)


def test_it_says_nothing_of_a_study_without_stage1(levels: SeenLevels) -> None:
    images = levels.images(levels.data.uids[0]).with_stage1(None)
    with pytest.raises(ValueError, match="and got none"):
        levels.infer(recurrent(levels), 0, images)
