"""fracture/sequence on tiny studies whose level maps are made from their masks: trained, predicted, refused."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TinyDataset, body_hu, write_mask, write_study
from safetensors.torch import load_file
from tiny_pipeline import ALONE

from cspine.aggregate import overall
from cspine.anatomy import LEVELS, TARGETS
from cspine.config import Augment, Config, Crop, Model, Paths, Sequence, Train, to_dict
from cspine.data.cache import open_study
from cspine.data.level_cells import UNKNOWN
from cspine.data.level_samples import LevelSamples
from cspine.data.prepare import prepare_and_report
from cspine.errors import UserError
from cspine.level_maps import LevelMap, level_map, map_file, write_level_map
from cspine.models.registry import create_model
from cspine.paths import read_json
from cspine.tables import STUDY, read_study_table
from cspine.tasks.base import StudyImages
from cspine.tasks.fracture_sequence import Task, weighted_entropy
from cspine.training import train_fold

ROOT = Path(__file__).parents[1]
STILL = Augment(share=0.0)


class Levels:
    """Eight studies: C1 in the cranial half, C2 in the caudal; where a level is fractured, its bone has a dark gap."""

    def __init__(self, folder: Path) -> None:
        self.data = TinyDataset(folder, studies=8)
        self.folder = folder
        labels = self.data.labels
        labels[list(TARGETS)] = 0
        labels.loc[[0, 1, 4, 5], "C1"] = 1
        labels.loc[[1, 2, 5, 6], "C2"] = 1
        labels["patient_overall"] = labels[["C1", "C2"]].max(axis=1)
        for row, uid in enumerate(self.data.uids):
            volume = self.volume(labels.loc[row])
            volume[:, 0, 0] = -1000 + row
            write_study(self.data.images(uid), volume, ascending=row % 2 == 1)
            write_mask(self.data.mask(uid), self.mask())
        self.data.boxes = pd.DataFrame(
            [(self.data.uids[0], 12.0, 15.0, 8.0, 3.0, 3)], columns=list(self.data.boxes.columns)
        )
        self.data.write_tables()
        prepare_and_report(self.data.config, ("train",))
        self.config = self._config()
        for uid in self.data.uids:
            write_level_map(self.map_file(uid), self.map_of(uid))
        (folder / "oof" / "maps" / "slices.parquet").touch()

    def volume(self, labels: pd.Series) -> np.ndarray:
        volume = body_hu()
        volume[:, 12:22, 10:22] = 700
        for level, slices in (("C1", slice(1, 3)), ("C2", slice(5, 7))):
            if labels[level]:
                volume[slices, 15:18, 12:20] = -600
        return volume

    def map_file(self, uid: str) -> Path:
        return map_file(self.folder / "oof" / "maps" / "fold0", uid)

    def mask(self) -> np.ndarray:
        labels = np.zeros((8, 32, 32), np.uint8)
        labels[:4, 12:22, 10:22], labels[4:, 12:22, 10:22] = 1, 2
        return labels

    def map_of(self, uid: str, but: int = 0) -> LevelMap:
        """The map that the mask of a study gives, without level `but`."""
        study = open_study(self.data.config, uid)
        small = study.levels[:, 1::2, 1::2]
        values = np.stack([(small == level) & (level != but) for level in range(1, 8)]).astype(float)
        return level_map(values, study.geometry.z_mm, 48.0)

    def _config(self) -> Config:
        base = self.data.config
        return Config(
            name="seq",
            task="fracture/sequence",
            stage1="maps",
            paths=Paths(input=base.paths.input, cache=base.paths.cache, oof=str(self.folder / "oof")),
            preprocess=base.preprocess,
            folds=base.folds,
            data=replace(base.data, image_size_px=32, neighbours=0, workers=0),
            crop=Crop(slices=4, margin_mm=0.0, side_mm=32.0, boxes=0.5),
            augment=STILL,
            model=Model(
                name="sequence_classifier", backbone="test_resnet", dropout=0.0, sequence=Sequence(hidden=8, clearest=2)
            ),
            train=Train(epochs=25, batch_size=4, max_rate=1e-2),
        )


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> Levels:
    return Levels(tmp_path_factory.mktemp("sequence"))


@pytest.fixture(scope="module")
def trained(levels: Levels) -> Levels:
    for fold in (0, 1):
        train_fold(levels.config, fold, ALONE)
    return levels


def test_it_learns_which_level_is_fractured(trained: Levels) -> None:
    table = read_study_table(trained.folder / "oof" / "seq" / "oof.csv").set_index(STUDY)
    labels = trained.data.labels.set_index(STUDY).loc[table.index]
    for level in ("C1", "C2"):
        positive = labels[level] == 1
        assert table.loc[positive, level].min() > table.loc[~positive, level].max(), level
    assert sorted(table.index) == sorted(trained.data.uids)
    assert np.allclose(table["patient_overall"], [overall(row) for row in table[list(LEVELS)].to_numpy()])
    # No study shows C3, so it gets its prevalence, which is 0.
    assert (table["C3"] == 0).all()


def infer(levels: Levels, uid: str, found: LevelMap, config: Config | None = None) -> np.ndarray:
    study, config = open_study(levels.config, uid), config or levels.config
    folder = levels.folder / "oof" / "seq"
    models, facts = [], []
    for fold in (0, 1):
        model = create_model(config.model, 1, 1)
        model.load_state_dict(load_file(folder / f"fold{fold}" / "weights.safetensors"))
        models.append(model.eval())
        facts.append(read_json(folder / f"fold{fold}" / "done.json")["facts"])
    images = StudyImages(np.array(study.volume), study.geometry.z_mm, study.geometry.spacing_mm)
    images = images.with_stage1(None, lambda: found)
    return Task.infer(models, config, images, facts, torch.device("cpu"))


def test_inference_is_the_mean_of_the_folds_and_a_missing_level_gets_the_prior(trained: Levels) -> None:
    uid = trained.data.uids[0]
    whole = infer(trained, uid, trained.map_of(uid))
    table = read_study_table(trained.folder / "oof" / "seq" / "oof.csv").set_index(STUDY)
    fold = int(table.loc[uid, "fold"])
    model = create_model(trained.config.model, 1, 1)
    model.load_state_dict(load_file(trained.folder / "oof" / "seq" / f"fold{1 - fold}" / "weights.safetensors"))
    samples = Task(trained.config, fold).prediction_samples()
    first = next(number for number, level in enumerate(samples.levels) if samples.studies[level.study].uid == uid)
    with torch.inference_mode():
        other = float(model.eval()(samples[first, -1]["image"][None])[0, 0].sigmoid())
    assert whole[1] == pytest.approx((table.loc[uid, "C1"] + other) / 2, abs=1e-5)
    missing = infer(trained, uid, trained.map_of(uid, but=1))
    assert missing[2:] == pytest.approx(whole[2:], abs=1e-6)
    folds = [read_json(trained.folder / "oof" / "seq" / f"fold{k}" / "done.json")["facts"]["priors"] for k in (0, 1)]
    assert missing[1] == pytest.approx(np.mean([prior["C1"] for prior in folds]))
    nothing = infer(trained, uid, level_map(np.zeros((7, 8, 12, 12)), np.arange(8.0)[::-1], 48.0))
    assert nothing[1] == missing[1]


def test_a_level_that_is_cut_off_is_neither_trained_on_nor_judged(levels: Levels) -> None:
    uid = levels.data.uids[3]
    part = levels.map_of(uid)
    part.probabilities[0, :3] = 0
    file = levels.map_file(uid)
    try:
        write_level_map(file, part)
        for share, expected in ((0.2, 16), (0.3, 15)):
            config = replace(levels.config, crop=replace(levels.config.crop, least_share=share))
            assert len(Task(config, None).training_samples()) == expected
    finally:
        write_level_map(file, levels.map_of(uid))


def test_the_prior_of_a_missing_level_is_fitted_where_it_was_missing(levels: Levels) -> None:
    assert Task(levels.config, None).priors["C1"] == pytest.approx(0.5)
    for number, fractured in ((0, 1), (2, 0)):
        file = levels.map_file(levels.data.uids[number])
        try:
            write_level_map(file, levels.map_of(levels.data.uids[number], but=1))
            priors = Task(levels.config, None).priors
        finally:
            write_level_map(file, levels.map_of(levels.data.uids[number]))
        # Five usual studies, of which half are fractured, and the one that lacks the level.
        assert priors["C1"] == pytest.approx((2.5 + fractured) / 6)
        assert priors["C2"] == pytest.approx(0.5)


def test_levels_without_a_fracture_are_drawn_in_part_and_stand_for_all(levels: Levels) -> None:
    samples = Task(replace(levels.config, crop=replace(levels.config.crop, negatives=0.5)), None).training_samples()
    assert (len(samples), samples.fractured.sum()) == (16, 8)
    drawn = [samples.draw(np.random.default_rng(seed)) for seed in range(20)]
    assert {len(order) for order in drawn} == {12}
    assert {int(samples.fractured[order].sum()) for order in drawn} == {8}
    assert {int(number) for order in drawn for number in order} == set(range(16))
    weights = [float(samples[number, -1]["weight"]) for number in drawn[0]]
    # Of 8 fractured, twice as dear, and 4 others that stand for 8: 2 * 8 + 8 over 12 levels.
    assert sorted(weights) == pytest.approx([0.5] * 8 + [1.0] * 4)
    costs = [weight * (1 + samples.fractured[n]) for weight, n in zip(weights, drawn[0], strict=True)]
    assert np.mean(costs) == pytest.approx(1)
    everything = Task(levels.config, None).training_samples()
    assert len(everything.draw(np.random.default_rng(0))) == 16
    assert [float(everything[number, -1]["weight"]) for number in range(16)] == pytest.approx([2 / 3] * 16)


def known_slices(samples: LevelSamples, uid: str, level: int) -> list[float]:
    number = next(
        number
        for number, one in enumerate(samples.levels)
        if samples.studies[one.study].uid == uid and one.place.top_mm == (101.5 if level == 1 else 89.5)
    )
    return samples[number, -1]["slices"].tolist()


def test_boxes_tell_which_images_show_the_fracture(levels: Levels) -> None:
    samples = Task(levels.config, None).training_samples()
    # The box of the first study lies on its third slice, 3 mm from the second and the fourth.
    assert known_slices(samples, levels.data.uids[0], 1) == [0, UNKNOWN, 1, UNKNOWN]
    assert known_slices(samples, levels.data.uids[0], 2) == [0, 0, 0, 0]
    assert known_slices(samples, levels.data.uids[1], 1) == [UNKNOWN] * 4


def test_a_box_beside_the_level_tells_nothing(levels: Levels) -> None:
    elsewhere = levels.data.boxes.assign(x=0.0, y=0.0, width=3.0)
    file = levels.data.root / "train_bounding_boxes.csv"
    try:
        elsewhere.to_csv(file, index=False)
        samples = Task(levels.config, None).training_samples()
        assert known_slices(samples, levels.data.uids[0], 1) == [UNKNOWN] * 4
    finally:
        levels.data.write_tables()


def test_augmented_samples_follow_from_their_seed(levels: Levels) -> None:
    config = replace(levels.config, augment=Augment(horizontal_flip=0.5, brightness=0.3))
    samples = Task(config, None).training_samples()
    one, again, other = samples[0, 7]["image"], samples[0, 7]["image"], samples[0, 8]["image"]
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(samples[0, -1]["image"], Task(levels.config, None).training_samples()[0, 5]["image"])


def test_the_mask_is_moved_but_not_repainted(levels: Levels) -> None:
    still = Augment(rotate_deg=0, shift_x=0, shift_y=0, scale=0, brightness=0.9, contrast=0.0)
    sample = Task(replace(levels.config, augment=still), None).training_samples()
    image, plain = sample[0, 3]["image"].float(), sample[0, -1]["image"].float()
    assert (image[:, :-1] - plain[:, :-1]).abs().max() > 20
    assert image[1, -1].max() == plain[1, -1].max() == 255


def test_a_hidden_mask_says_nothing_and_only_in_training(levels: Levels) -> None:
    config = replace(levels.config, crop=replace(levels.config.crop, hide_mask=0.5))
    hidden, plain = Task(config, None).training_samples(), Task(levels.config, None).training_samples()
    masks = [hidden[0, seed]["image"][:, -1] for seed in range(40)]
    says_nothing = [bool((mask == 128).all()) for mask in masks]
    assert 10 < sum(says_nothing) < 30
    for seed in range(40):
        one, other = hidden[0, seed]["image"], plain[0, seed]["image"]
        assert torch.equal(one[:, :-1], other[:, :-1])
        assert torch.equal(one[:, -1], other[:, -1]) != says_nothing[seed]
    assert torch.equal(hidden[0, -1]["image"], plain[0, -1]["image"])


def test_the_loss_is_the_mean_of_what_is_known_by_its_weight() -> None:
    logits, truth = torch.tensor([0.5, -1.0, 2.0]), torch.tensor([1.0, 0.0, 1.0])
    weights = torch.tensor([1.0, 3.0, 0.0])
    softplus = torch.nn.functional.softplus(torch.tensor([-0.5, -1.0]))
    expected = (2 * softplus[0] + 3 * softplus[1]) / 3
    assert float(weighted_entropy(logits, truth, weights, 2.0)) == pytest.approx(float(expected))
    assert float(weighted_entropy(logits, truth, torch.zeros(3), 2.0)) == 0


def test_the_images_count_by_their_boxes_weight(levels: Levels) -> None:
    outputs = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    slices = torch.tensor([[0, UNKNOWN, 1, UNKNOWN], [UNKNOWN] * 4])
    batch = {"fractured": torch.tensor([1.0, 0.0]), "weight": torch.ones(2), "slices": slices}
    losses = {
        weight: float(
            Task(replace(levels.config, crop=replace(levels.config.crop, boxes=weight)), 0).loss(outputs, batch)
        )
        for weight in (0.0, 1.0, 3.0)
    }
    images = weighted_entropy(outputs[0, [1, 3]], torch.tensor([0.0, 1.0]), torch.ones(2), 2.0) * 2 / 8
    assert losses[1.0] - losses[0.0] == pytest.approx(float(images), rel=1e-4)
    assert losses[3.0] - losses[0.0] == pytest.approx(3 * float(images), rel=1e-4)


def test_two_processes_learn_what_one_does_at_the_same_global_batch(levels: Levels) -> None:
    """Without batch norms, whose statistics are each process's own; a fractured level weighs alike in every batch."""
    model = replace(levels.config.model, backbone="test_convnext")
    crop = replace(levels.config.crop, negatives=0.5)
    config = replace(levels.config, model=model, crop=crop, train=Train(epochs=8, batch_size=4, max_rate=3e-3))
    for fold in (0, 1):
        train_fold(replace(config, name="alone"), fold, ALONE)
    two = replace(config, name="pair", train=replace(config.train, batch_size=2, device="cpu"))
    file = levels.folder / "pair.yaml"
    file.write_text(json.dumps(to_dict(two)))  # JSON is YAML
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29523"]
    words = ["src/train.py", "--config", str(file), "--fold", "all"]
    done = subprocess.run([*launcher, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    one, both = (read_study_table(levels.folder / "oof" / name / "oof.csv") for name in ("alone", "pair"))
    assert (one[[STUDY, "fold"]] == both[[STUDY, "fold"]]).all(axis=None)
    assert one[list(LEVELS[:2])].to_numpy().std() > 0.01
    # Gradients are summed in another order: float32 rounding over the steps of eight epochs.
    np.testing.assert_allclose(one[list(TARGETS)], both[list(TARGETS)], atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"stage1": "v"}, r"needs the level maps .* task vertebra/volume"),
        ({"stage1": None}, "the key 'stage1'"),
        ({"model": Model()}, "needs model.name=sequence_classifier"),
        ({"augment": Augment(mixup=0.2)}, r"not transformed by augment\.mixup"),
        ({"augment": Augment(distortion=0.2)}, r"not transformed by augment\.distortion"),
        ({"crop": Crop(hide_mask=0.6, wear_mask=0.6)}, "shares, together at most 1"),
    ],
)
def test_what_it_cannot_do_is_refused(levels: Levels, changes: dict, told: str) -> None:
    with pytest.raises(UserError, match=told):
        Task(replace(levels.config, **changes), 0).training_samples()


def test_a_restarted_map_of_another_stack_is_refused(levels: Levels) -> None:
    uid = levels.data.uids[2]
    file = levels.map_file(uid)
    made = levels.map_of(uid)
    try:
        write_level_map(file, replace(made, plane_z_mm=made.plane_z_mm + 40))
        with pytest.raises(UserError, match=r"does not fit study .* in the cache"):
            Task(levels.config, 0)
    finally:
        write_level_map(file, made)


def test_the_config_of_the_run_is_json(trained: Levels) -> None:
    done = json.loads((trained.folder / "oof" / "seq" / "fold0" / "done.json").read_text())
    assert len(done["facts"]["volumes_mm3"]) == 7
    assert done["facts"]["volumes_mm3"][0] == pytest.approx(4 * 3 * 20 * 24, rel=0.4)
    assert done["facts"]["volumes_mm3"][4] == 0
