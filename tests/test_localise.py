"""Detectors as tasks: which slices teach, boxes in pixels of the files, lesions and scores of a run."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fracture_sequence import Levels
from tiny_pipeline import ALONE

from cspine.anatomy import LEVELS, TARGETS
from cspine.benchmarks.lesion_member import best_scores, lesion_member_table
from cspine.benchmarks.localise import localise_table
from cspine.box_runs import box_text, read_box_scores
from cspine.config import Augment, Config, Data, Localise, Model, Train
from cspine.data.box_samples import BoxSamples, boxes_in_image, corners_in_volume, slices_to_learn
from cspine.data.boxes import boxes_in_cache
from cspine.data.cache import open_study
from cspine.data.preprocess import Crop
from cspine.errors import UserError
from cspine.evaluation import evaluate_runs, evaluation_text
from cspine.held_out import load_placed_fold, out_of_fold_images
from cspine.look_heat import StudyPlace, boxes_of_heat, heat_boxes, planes_of_slices
from cspine.models.detector import KEPT
from cspine.paths import write_json
from cspine.runs import Run
from cspine.tables import FOUND_BOXES, STUDY, read_found_boxes
from cspine.tasks.base import find_task
from cspine.tasks.detector import DetectorTask, found_boxes
from cspine.tasks.fracture_slice import read_presence
from cspine.training import train_fold


class Boxed(Levels):
    """Every fractured level of all studies but the last has boxes about its gap on both slices."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        labels, rows = self.data.labels.set_index(STUDY), []
        tables = []
        for uid in self.data.uids:
            study = open_study(self.data.config, uid)
            for level, slices in (("C1", (1, 2)), ("C2", (5, 6))):
                numbers = study.geometry.file_numbers[list(slices)]
                if labels.loc[uid, level] and uid != self.data.uids[6]:
                    rows += [(uid, 12.0, 15.0, 8.0, 3.0, number) for number in numbers]
            presence = pd.DataFrame(np.zeros((8, 7)), columns=list(LEVELS))
            presence.iloc[:4, 0], presence.iloc[4:, 1] = 1.0, 1.0
            presence.insert(0, "z_mm", study.geometry.z_mm)
            presence.insert(0, "file_number", study.geometry.file_numbers)
            presence.insert(0, STUDY, uid)
            tables.append(presence)
        self.data.boxes = pd.DataFrame(rows, columns=list(self.data.boxes.columns))
        self.data.write_tables()
        pd.concat(tables).to_parquet(folder / "oof" / "maps" / "slices.parquet", index=False)

    def detector(self, name: str = "ssd", **changes: object) -> Config:
        config = replace(
            self.config,
            name=f"found-{name}",
            task=f"localise/{name}",
            data=replace(self.config.data, image_size_px=64),
            augment=Augment(horizontal_flip=0.5, rotate_deg=0, shift_x=0.05, shift_y=0.05, scale=0.0),
            model=Model(name=name, backbone="test_byobnet"),
            train=Train(epochs=30, batch_size=4, max_rate=3e-3),
        )
        return replace(config, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def boxed(tmp_path_factory: pytest.TempPathFactory) -> Boxed:
    return Boxed(tmp_path_factory.mktemp("localise"))


@settings(max_examples=40, deadline=None)
@given(
    crop=st.builds(
        Crop, st.integers(-20, 40), st.integers(-20, 40), st.integers(60, 300), st.integers(60, 300), st.just(96)
    ),
    share=st.sampled_from([0.5, 0.8, 1.0]),
    place=st.tuples(st.floats(0.3, 0.5), st.floats(0.3, 0.5), st.floats(0.05, 0.2), st.floats(0.05, 0.2)),
)
def test_boxes_come_back_from_the_image_as_they_went_in(crop: Crop, share: float, place: tuple[float, ...]) -> None:
    data = Data(image_size_px=80, centre_share=share)
    x, y = crop.left + place[0] * crop.width, crop.top + place[1] * crop.height
    box = np.array([[x, y, place[2] * crop.width, place[3] * crop.height]])
    inside = boxes_in_image(box, crop, data)
    corners = np.concatenate([inside[:, :2], inside[:, :2] + inside[:, 2:]], axis=1)
    assert corners.min() >= 0
    assert corners.max() <= 80
    back = corners_in_volume(corners, crop, data)
    assert np.allclose(back, [x, y, x + box[0, 2], y + box[0, 3]], atol=1e-6)


def test_a_slice_of_a_fractured_level_without_a_box_teaches_nothing() -> None:
    presence = np.zeros((6, 7))
    presence[:3, 0], presence[2:5, 1] = 1, 1
    boxed, none = np.array([False, True, False, False, False, False]), np.zeros(6, bool)
    first, neither = np.eye(7)[0], np.zeros(7)
    assert slices_to_learn(boxed, presence, first).tolist() == [1, 3, 4]
    assert slices_to_learn(none, presence, first).tolist() == [3, 4]
    # The last slice shows no vertebra at all.
    assert slices_to_learn(none, presence, neither).tolist() == [0, 1, 2, 3, 4]


def test_samples_show_the_gap_within_their_box_and_draw_as_many_without(boxed: Boxed) -> None:
    samples = find_task("localise/ssd")(boxed.detector(), 1).training_samples()  # type: ignore[attr-defined]
    assert isinstance(samples, BoxSamples)
    has_box = ~np.isnan(samples.boxes[:, 0])
    assert 0 < has_box.sum() < len(samples)
    for number in np.flatnonzero(has_box):
        for seed in (-1, 3, 4):
            sample = samples[int(number), seed]
            left, top, right, bottom = sample["box"].round().int().tolist()
            image = sample["image"][0].float()
            inside = image[top:bottom, left:right]
            assert inside.mean() < 60, "the gap is dark"
            assert image[max(top - 4, 0) : bottom + 4, left:right].mean() > inside.mean() + 20
    drawn = samples.draw(np.random.default_rng(0))
    assert has_box[drawn].sum() == has_box.sum()
    assert len(drawn) == min(len(samples), 2 * has_box.sum())
    more = replace(samples, negatives=0.5).draw(np.random.default_rng(0))
    assert len(more) == has_box.sum() + round(0.5 * has_box.sum())


def test_true_boxes_given_as_found_are_written_as_people_drew_them(boxed: Boxed) -> None:
    task: DetectorTask = find_task("localise/ssd")(boxed.detector(), 0)  # type: ignore[assignment]
    samples = task.prediction_samples()
    logits = np.zeros((len(samples), KEPT, 5), np.float32)
    for number, study in enumerate(task.predicted):
        mine = np.flatnonzero(samples.study == number)
        boxes = boxes_in_image(task._placed(study).boxes, study.crop, task.config.data)[samples.index[mine]]
        has_box = ~np.isnan(boxes[:, 0])
        logits[mine[has_box], 1, :2] = boxes[has_box, :2]
        logits[mine[has_box], 1, 2:4] = boxes[has_box, :2] + boxes[has_box, 2:]
        logits[mine[has_box], 1, 4] = 0.9
    found = task.predictions(logits.reshape(len(samples), -1)).sort_values([STUDY, "file_number"])
    true = task.true_boxes().sort_values([STUDY, "file_number"])
    assert len(true) >= 4
    assert found[[STUDY, "file_number"]].to_numpy().tolist() == true[[STUDY, "file_number"]].to_numpy().tolist()
    sides = ["x", "y", "width", "height"]
    assert np.allclose(found[sides].to_numpy(float), true[sides].to_numpy(float), atol=0.02)
    assert task.score(found) == pytest.approx({"mean_iou": 1.0, "slices_found": 1.0}, abs=0.02)
    labels = boxed.data.labels.set_index(STUDY)
    assert all(labels.loc[row[STUDY], row["level"]] for _, row in found.iterrows())
    assert task.predictions(np.zeros((len(samples), KEPT * 5), np.float32)).columns.tolist() == list(FOUND_BOXES)
    # A box of which the image's edge leaves nothing could not be read again.
    logits[..., 0] = logits[..., 2] = 64.0
    assert task.predictions(logits.reshape(len(samples), -1)).empty


def test_a_run_leaves_boxes_lesions_and_scores(boxed: Boxed) -> None:
    config = boxed.detector()
    for fold in (0, 1):
        train_fold(config, fold, ALONE)
    folder = boxed.folder / "oof" / config.name
    boxes = read_found_boxes(folder / "boxes.csv")
    assert len(boxes)
    lesions = pd.read_csv(folder / "lesions.csv", dtype={STUDY: str}, keep_default_na=False)
    assert set(lesions[STUDY]) == set(boxes[STUDY])
    scores = read_box_scores(Run(config.name, folder), config)
    # The study whose fracture nobody annotated counts neither for nor against.
    assert scores["studies"] == 7
    assert scores["lesions"] == 8 - 1
    assert scores["mean_iou"] > 0.3
    assert scores["slices_found"] > 0.5
    text = evaluation_text(*evaluate_runs([config.name], config))
    assert text == box_text(config.name, scores)
    assert f"{scores['mean_iou']:.3f}" in text

    # What the fold's own model infers of a study that it held out is what the run wrote of it.
    cpu, presence = torch.device("cpu"), read_presence(config)
    for fold in (0, 1):
        member = load_placed_fold(config.name, fold, config, cpu)
        uid = find_task(config.task)(config, fold).predicted[0].uid  # type: ignore[attr-defined]
        study, written = open_study(config, uid), boxes[boxes[STUDY] == uid].reset_index(drop=True)
        seen = presence[uid].copy()
        found = member.infer(out_of_fold_images(study, config, seen), cpu)
        table = found_boxes(found, seen, uid, study.geometry, study.crop, config)
        assert len(table)
        assert table[[STUDY, "file_number", "level"]].equals(written[[STUDY, "file_number", "level"]])
        sides = ["x", "y", "width", "height", "score"]
        assert np.allclose(table[sides].astype(float), written[sides].astype(float), atol=0.02)
        # Slices on which stage 1 sees nothing are not searched.
        seen[2:] = 0
        assert set(np.nonzero(member.infer(out_of_fold_images(study, config, seen), cpu)[..., 4])[0]) <= {0, 1}


def test_only_slices_of_levels_that_the_ensemble_takes_for_fractured(boxed: Boxed) -> None:
    config = boxed.detector(localise=Localise(search="fractured"))
    task: DetectorTask = find_task("localise/ssd")(config, 0)  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"python src/ensemble\.py"):
        task.prediction_samples()
    folder = boxed.folder / "oof" / "ensemble"
    folder.mkdir()
    table = boxed.data.labels[[STUDY, *TARGETS]].astype(dict.fromkeys(TARGETS, float)) * 1
    table[list(TARGETS)] = 0.4
    table.loc[table[STUDY] == task.predicted[0].uid, "C2"] = 0.6
    table.to_csv(folder / "oof.csv", index=False)
    write_json(folder / "blend.json", {"thresholds": dict.fromkeys(TARGETS, 0.5)})
    samples = task.prediction_samples()
    assert set(samples.study) == {0}
    assert samples.index.tolist() == [4, 5, 6, 7]
    every = find_task("localise/ssd")(boxed.detector(), 0).prediction_samples()  # type: ignore[attr-defined]
    assert len(every) == 8 * len(task.predicted)


def test_another_model_than_the_tasks_is_refused(boxed: Boxed) -> None:
    with pytest.raises(UserError, match=r"task=localise/rfcn needs model\.name=rfcn, not ssd"):
        find_task("localise/rfcn")(replace(boxed.detector(), task="localise/rfcn"), 0)


def test_a_box_about_heat_lies_where_the_heat_is(boxed: Boxed) -> None:
    opened = open_study(boxed.data.config, boxed.data.uids[0])
    study = StudyPlace(opened.uid, opened.geometry, opened.crop)
    side = study.crop.size_px
    heat = np.zeros((3, 20, 20))
    heat[1, 4:8, 10:16], heat[1, 15, 2] = 2.0, 1.5
    heat[2, 0, 0] = 0.5
    z_mm = study.geometry.z_mm[[1, 2, 3]]
    found = boxes_of_heat(heat, z_mm, (0.5, 1.0, 0.25, 0.75), study, 1, 0.8)
    # One plane has heat, and the smaller spot beside the greatest is another piece.
    assert found["file_number"].tolist() == [study.geometry.file_numbers[2]]
    assert found[["score", "level"]].iloc[0].tolist() == [0.8, "C2"]
    x, y, width, height = found[["x", "y", "width", "height"]].iloc[0].astype(float)
    placed = boxes_in_cache(np.array([[x, y, width, height]]), study.crop)[0] / side
    assert placed == pytest.approx([0.5 + 10 / 40, 0.25 + 4 / 40, 6 / 40, 4 / 40], abs=0.01)
    # A sixth of the field wider, but not beyond the right and the upper edge of the planes.
    field_mm = study.crop.height * study.geometry.pixel_spacing_mm[0]
    wide = boxes_of_heat(heat, z_mm, (0.5, 1.0, 0.25, 0.75), study, 1, 0.8, margin_mm=field_mm / 6)
    corner = boxes_in_cache(wide[["x", "y", "width", "height"]].to_numpy(float), study.crop)[0] / side
    assert corner == pytest.approx([0.75 - 1 / 6, 0.25, 0.25 + 1 / 6, 0.2 + 1 / 6], abs=0.01)


def test_a_plane_stands_for_the_slices_about_it_and_sparse_slices_have_their_hottest() -> None:
    heat = np.zeros((3, 4, 4))
    heat[:, 0, 0] = 1.0, 3.0, 2.0
    dense = planes_of_slices(heat, np.array([-2.0, -6.0, -10.0]), -np.arange(0.5, 20.0))
    assert dense == {z: z // 4 for z in range(12)}
    sparse = planes_of_slices(heat, np.array([-2.0, -4.0, -6.0]), np.array([0.0, -5.0, -10.0]))
    assert sparse == {0: 0, 1: 1}
    assert planes_of_slices(heat[:1], np.array([-4.4]), -np.arange(9.0)) == {4: 0}


def test_the_table_has_a_row_of_a_heads_heat_too(boxed: Boxed) -> None:
    head = replace(boxed.config, name="seq", train=Train(epochs=1, batch_size=4))
    for config in (head, boxed.detector(name="rfcn", train=Train(epochs=1, batch_size=4))):
        for fold in (0, 1):
            train_fold(config, fold, ALONE)
    text = localise_table(["found-rfcn", "seq"], boxed.detector())
    assert [line.split()[0] for line in text.splitlines()[1:]] == ["found-rfcn", "heat"]
    assert len(text.splitlines()[2].removeprefix("heat of seq").split()) == 10
    with pytest.raises(UserError, match="has no method `look`"):
        heat_boxes(Run("found-rfcn", boxed.folder / "oof" / "found-rfcn"), boxed.detector())


def test_the_best_lesion_of_each_level_and_of_the_patient_counts() -> None:
    lesions = pd.DataFrame(
        [("b", "C2", 0.6), ("b", "C2", 0.4), ("b", "", 0.9), ("a", "C7", 0.01), ("gone", "C1", 1.0)],
        columns=[STUDY, "level", "score"],
    )
    found = best_scores(lesions, ["a", "b", "c"], 0.05)
    assert found[0].tolist() == [0.05] * 8
    assert found[1].tolist() == [0.9, 0.05, 0.6, *[0.05] * 5]
    assert found[2].tolist() == [0.05] * 8


def test_lesions_that_tell_the_truth_lower_the_loss_of_the_blend(boxed: Boxed) -> None:
    folder = boxed.folder / "oof" / "found-ssd"
    kept = (folder / "lesions.csv").read_bytes()
    lesions = pd.read_csv(folder / "lesions.csv", dtype={STUDY: str}).iloc[:1]
    truth = boxed.data.labels.set_index(STUDY)[list(LEVELS)].stack()
    rows = [lesions.assign(StudyInstanceUID=uid, level=level, score=0.99) for uid, level in truth[truth > 0].index]
    pd.concat(rows).to_csv(folder / "lesions.csv", index=False)
    told = [line.split() for line in lesion_member_table(["found-ssd"], boxed.detector()).splitlines()]
    (folder / "lesions.csv").write_bytes(kept)
    assert told[1][:2] == ["1", "heads"]
    assert told[2][:2] == ["and", "found-ssd"]
    alone, both, difference = float(told[1][2]), float(told[2][2]), float(told[3][4])
    assert both < alone - 0.1
    assert difference == pytest.approx(both - alone, abs=2e-4)
    with pytest.raises(UserError, match="there is no run nothing"):
        lesion_member_table(["nothing"], boxed.detector())
