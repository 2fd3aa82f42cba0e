import numpy as np
import pandas as pd
import pytest

from cspine.anatomy import LEVELS, OVERALL, TARGETS
from cspine.config import Folds
from cspine.data.folds import make_folds, write_or_verify_folds
from cspine.data.rsna import COUNTS
from cspine.errors import UserError
from cspine.tables import STUDY


def make_labels(studies=400, seed=0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    labels = pd.DataFrame({STUDY: [f"1.2.{number}" for number in range(studies)]})
    for level, share in zip(LEVELS, (0.07, 0.14, 0.04, 0.05, 0.08, 0.14, 0.19), strict=True):
        labels[level] = (rng.random(studies) < share).astype(int)
    labels[TARGETS[0]] = labels[list(LEVELS)].max(axis=1)
    return labels


def spread(table: pd.DataFrame, values) -> int:
    """Greatest minus least count of a trait over the folds."""
    counts = np.bincount(table["fold"], weights=np.asarray(values, float), minlength=table["fold"].max() + 1)
    return int(counts.max() - counts.min())


@pytest.mark.parametrize("seed", range(4))
def test_folds_share_masks_boxes_and_every_level(seed):
    labels = make_labels(seed=seed)
    masks = set(labels[STUDY][::9])
    boxes = set(labels.loc[labels[TARGETS[0]] == 1, STUDY][::4])
    folds = make_folds(labels, masks, boxes, Folds(count=5))
    merged = folds.merge(labels, on=STUDY)
    assert len(folds) == 400
    assert spread(folds, np.ones(400)) <= 2
    assert spread(folds, folds[STUDY].isin(masks)) <= 1
    assert spread(folds, folds[STUDY].isin(boxes)) <= 2
    for target in TARGETS:
        assert spread(merged, merged[target]) <= (4 if target == OVERALL else 2), target


def rsna_like(seed: int) -> tuple[pd.DataFrame, set[str], set[str]]:
    """Labels with the exact marginals of the competition's (positives by level, studies by number of fractured
    levels), 87 masks and 235 boxes on positives, 40 studies with both.
    """
    rng = np.random.default_rng(seed)
    left = np.array([COUNTS["labels"]["positives"][level] for level in LEVELS], float)
    values = np.zeros((COUNTS["studies"], len(LEVELS)), int)
    counts = [int(n) for n, studies in COUNTS["labels"]["fractured_levels"].items() for _ in range(studies)]
    for row, count in enumerate(sorted(counts, reverse=True)):
        # The levels with most to place come first, or the last studies could not be given enough of them.
        chosen = np.argsort(-left - rng.random(len(left)))[:count]
        values[row, chosen], left[chosen] = 1, left[chosen] - 1
    assert not left.any()
    labels = pd.DataFrame(rng.permutation(values), columns=list(LEVELS))
    labels.insert(0, STUDY, [f"1.2.{n}" for n in rng.permutation(len(labels))])
    labels[OVERALL] = labels[list(LEVELS)].max(axis=1)
    positive = rng.permutation(labels.loc[labels[OVERALL] == 1, STUDY])
    boxes = set(positive[:235])
    others = rng.permutation(labels.loc[~labels[STUDY].isin(boxes), STUDY])
    return labels, {*positive[:40], *others[:47]}, boxes


@pytest.mark.parametrize("seed", range(3))
def test_folds_of_the_competitions_label_counts_are_alike(seed):
    labels, masks, boxes = rsna_like(seed)
    folds = make_folds(labels, masks, boxes, Folds(count=5))
    merged = folds.merge(labels, on=STUDY)
    fractured = merged[list(LEVELS)].sum(axis=1)
    balance = pd.DataFrame({target: merged.groupby("fold")[target].sum() for target in TARGETS})
    balance["studies"] = merged.groupby("fold").size()
    balance["masks"] = merged[STUDY].isin(masks).groupby(merged["fold"]).sum()
    balance["boxes"] = merged[STUDY].isin(boxes).groupby(merged["fold"]).sum()
    balance["two or more"] = (fractured > 1).groupby(merged["fold"]).sum()
    print(balance.to_string())
    spreads = balance.max() - balance.min()
    # A patient is placed by his rarest fractured level, so the patients' own count is less even: 5 % of its 192.
    assert spreads[OVERALL] <= 10
    assert spreads["two or more"] <= 6
    assert (spreads.drop([OVERALL, "two or more"]) <= 1).all(), spreads


def test_folds_do_not_depend_on_the_order_of_rows_but_on_the_seed():
    labels = make_labels(60)
    folds = make_folds(labels, set(), set(), Folds(count=3))
    assert folds.equals(make_folds(labels.sample(frac=1, random_state=1), set(), set(), Folds(count=3)))
    assert not folds.equals(make_folds(labels, set(), set(), Folds(count=3, seed=1)))


def test_too_few_studies_are_refused():
    with pytest.raises(UserError, match=r"3 studies cannot be dealt into folds\.count=5"):
        make_folds(make_labels(3), set(), set(), Folds())


def change(config, **folds):
    return type(config)(**{**vars(config), "folds": Folds(**{"count": 2, **folds})})


def test_folds_are_made_once_and_never_dealt_anew(tiny):
    folds = write_or_verify_folds(tiny.config)
    assert sorted(folds[STUDY]) == tiny.uids
    assert write_or_verify_folds(tiny.config).equals(folds)
    for config, reason in (
        (change(tiny.config, count=3), "it holds 2 folds, and folds.count=3"),
        (change(tiny.config, seed=5), "folds.seed=5"),
    ):
        with pytest.raises(UserError, match=reason) as caught:
            write_or_verify_folds(config)
        assert "delete" in str(caught.value)
    tiny.labels = tiny.labels.iloc[1:]
    tiny.write_tables()
    with pytest.raises(UserError, match="0 studies are new and 1 are gone"):
        write_or_verify_folds(tiny.config)
