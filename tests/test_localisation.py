import contextlib
import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cspine.lesions import LESION_COLUMNS
from cspine.localisation import average_precision, box_iou, froc, lesion_scores, match_lesions, mean_iou
from cspine.tables import STUDY


def boxes(*rows, scores=None) -> pd.DataFrame:
    """Rows of study, file_number, x, y, width, height."""
    table = pd.DataFrame(rows, columns=[STUDY, "file_number", "x", "y", "width", "height"])
    return table if scores is None else table.assign(score=scores)


def lesions(*rows) -> pd.DataFrame:
    """Rows of study, centre, half side, score, level."""
    made = []
    for number, (uid, centre, half, score, level) in enumerate(rows):
        middle = np.asarray(centre, float)
        made.append([uid, number + 1, level, score, 3, *middle, *(middle - half), *(middle + half)])
    return pd.DataFrame(made, columns=list(LESION_COLUMNS))


def test_iou_of_known_boxes():
    first, second = np.array([[0.0, 0, 4, 4], [0, 0, 0, 0]]), np.array([[2.0, 0, 4, 4], [4, 4, 2, 2], [0, 0, 4, 4]])
    assert box_iou(first, second) == pytest.approx(np.array([[8 / 24, 0, 1], [0, 0, 0]]))


def test_mean_iou_takes_the_surest_box_and_counts_only_slices_with_both():
    true = boxes(("a", 1, 0, 0, 4, 4), ("a", 2, 0, 0, 4, 4), ("b", 1, 0, 0, 4, 4))
    found = boxes(
        ("a", 1, 2, 0, 4, 4),
        ("a", 1, 0, 0, 4, 4),
        ("b", 1, 0, 0, 4, 4),
        ("b", 7, 0, 0, 4, 4),
        scores=[0.9, 0.1, 0.2, 1],
    )
    measured = mean_iou(found, true)
    assert (measured.mean, measured.matched, measured.annotated) == (pytest.approx((1 / 3 + 1) / 2), 2, 3)
    assert mean_iou(found.iloc[:0], true).mean is None


@st.composite
def detections(draw):
    side = st.integers(4, 12)
    box = st.tuples(st.sampled_from("ab"), st.integers(1, 2), st.integers(0, 10), st.integers(0, 10), side, side)
    true, found = draw(st.lists(box, min_size=1, max_size=6)), draw(st.lists(box, max_size=10))
    # COCO's code orders equal scores by chance of the slice; ours by row.
    scores = draw(st.lists(st.integers(1, 999), min_size=len(found), max_size=len(found), unique=True))
    return boxes(*found, scores=[score / 1000 for score in scores]), boxes(*true)


@pytest.mark.parametrize("iou", [0.3, 0.5])
@settings(max_examples=60, deadline=None)
@given(detections())
def test_average_precision_is_that_of_pycocotools(iou, made):
    found, true = made
    assert average_precision(found, true, iou) == pytest.approx(_by_coco(found, true, iou), abs=1e-9)


def _by_coco(found: pd.DataFrame, true: pd.DataFrame, iou: float) -> float:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    slices = {key: n for n, key in enumerate([(uid, number) for uid in "ab" for number in (1, 2)], start=1)}

    def annotations(table: pd.DataFrame) -> list[dict]:
        return [
            {"id": n, "image_id": slices[row[0], row[1]], "category_id": 1, "bbox": list(map(float, row[2:6])),
             "area": float(row[4] * row[5]), "iscrowd": 0, "score": float(row[6]) if len(row) > 6 else 1.0}
            for n, row in enumerate(table.itertuples(index=False, name=None), start=1)
        ]  # fmt: skip

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {"images": [{"id": n} for n in slices.values()], "categories": [{"id": 1}], "info": {}}
        truth.dataset["annotations"] = annotations(true)
        truth.createIndex()
        if not len(found):
            return 0.0
        evaluation = COCOeval(truth, truth.loadRes(annotations(found)), "bbox")
        evaluation.params.iouThrs = np.array([iou])
        evaluation.evaluate()
        evaluation.accumulate()
    # (IoU, recall, category, area: all, most detections: 100)
    return float(evaluation.eval["precision"][0, :, 0, 0, -1].mean())


def test_without_true_boxes_there_is_no_precision():
    assert average_precision(boxes(("a", 1, 0, 0, 1, 1), scores=[0.5]), boxes(), 0.5) is None


def test_a_hit_is_a_centre_in_the_widened_extent_of_the_same_study():
    true = lesions(("a", (0, 0, 0), 5, 1, "C2"), ("a", (0, 0, 12), 5, 1, "C3"), ("b", (0, 0, 0), 5, 1, "C2"))
    found = lesions(
        ("a", (9, 0, 0), 1, 1, ""), ("a", (11, 0, 0), 1, 1, ""), ("a", (0, 0, 7), 1, 1, ""), ("c", (0,) * 3, 1, 1, "")
    )
    assert match_lesions(found, true).tolist() == [0, -1, 1, -1]
    assert match_lesions(found, true, margin_mm=6.5).tolist() == [0, 0, 1, -1]


def test_froc_by_hand():
    true = lesions(("a", (0, 0, 0), 5, 1, "C2"), ("b", (0, 0, 0), 5, 1, "C2"))
    found = lesions(
        ("a", (1, 0, 0), 1, 0.9, ""), ("a", (2, 0, 0), 1, 0.8, ""), ("a", (50, 0, 0), 1, 0.7, ""),
        ("c", (0, 0, 0), 1, 0.7, ""), ("b", (0, 0, 0), 1, 0.6, ""), ("c", (9, 0, 0), 1, 0.1, ""),
    )  # fmt: skip
    curve = froc(found, true, studies=4)
    assert curve.scores.tolist() == [0.9, 0.8, 0.7, 0.6, 0.1]
    assert curve.sensitivity.tolist() == [0.5, 0.5, 0.5, 1, 1]
    assert curve.false_per_study.tolist() == [0, 0, 0.5, 0.5, 0.75]
    assert [curve.at(rate) for rate in (0.1, 0.5, 9)] == [0.5, 1, 1]
    assert curve.score == pytest.approx((0.5 * 2 + 5) / 7)
    assert froc(found.iloc[:0], true, 4).score == 0
    with pytest.raises(ValueError, match="at least one true lesion"):
        froc(found, true.iloc[:0], 4)


def test_distance_and_level_are_of_the_surest_hit():
    true = lesions(("a", (0, 0, 0), 5, 1, "C2"), ("a", (0, 0, 40), 5, 1, "C4"), ("b", (0, 0, 0), 5, 1, "C2"))
    found = lesions(("a", (1, 0, 0), 1, 0.3, "C2"), ("a", (3, 4, 0), 1, 0.9, "C3"), ("a", (0, 3, 40), 1, 0.5, "C4"))
    measured = lesion_scores(found, true)
    assert (measured.found, measured.distance_mm, measured.right_level) == (2, 4.0, 0.5)
    assert lesion_scores(found.iloc[:0], true).distance_mm is None
