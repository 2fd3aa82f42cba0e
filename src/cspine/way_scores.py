"""The ways to blend side by side: in-sample and nested loss and how sure each is; which members to drop first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cspine.blend import Blend
from cspine.bootstrap import Interval, loss_difference, loss_interval
from cspine.metrics import weighted_log_loss
from cspine.scores import number
from cspine.ways import BLENDS, INCUMBENT, Comparison

CHOSEN = "as chosen"
HEADER = ("", "in-sample", "nested", "low", "high", "above chosen", "low", "high", "runs in the kernel")


@dataclass(frozen=True)
class WayScore:
    """Column losses of a way to blend; `above` is its nested loss less that of the rule, on the same patients."""

    name: str
    in_sample: float
    nested: Interval
    above: Interval | None  # None: the rule itself
    portable: bool

    @property
    def doubt(self) -> str | None:
        """A warning where the in-sample loss lies below the interval of the nested one."""
        if self.in_sample >= self.nested.low:
            return None
        return (
            f"{self.name}: the in-sample loss {number(self.in_sample)} lies below the 95 % interval of the nested one, "
            f"{number(self.nested.value)} ({number(self.nested.low)} to {number(self.nested.high)}): it has learnt "
            "these rows by heart; believe the nested one"
        )


def score_ways(ways: Comparison, labels: np.ndarray) -> list[WayScore]:
    """The score of each way, and of the rule that chose among them, which stands first.

    The rule's in-sample loss is that of the way it chose on all rows.
    """

    def scored(name: str, in_sample: np.ndarray, nested: np.ndarray, portable: bool) -> WayScore:
        fitted = weighted_log_loss(labels, in_sample, "column")
        above = None if name == CHOSEN else loss_difference(labels, nested, ways.chosen)
        return WayScore(name, fitted, loss_interval(labels, nested), above, portable)

    rule = scored(CHOSEN, ways.in_sample[ways.way], ways.chosen, True)
    return [rule, *(scored(name, ways.in_sample[name], ways.nested[name], name in BLENDS) for name in ways.nested)]


def way_rows(scores: Sequence[WayScore]) -> list[list[str]]:
    """The cells of the table under HEADER."""
    return [
        [
            score.name,
            number(score.in_sample) + ("*" if score.doubt else " "),
            *map(number, score.nested),
            *(["", "", ""] if score.above is None else map(number, score.above)),
            "yes" if score.portable else "no",
        ]
        for score in scores
    ]


def way_text(ways: Comparison) -> str:
    """What was chosen, and by which rule."""
    if len(ways.nested) == 1:
        return "one member: there is nothing to weigh"
    if len(ways.picks) < 3:
        return f"{ways.way}: two folds are too few to choose a way by"
    picks = ", ".join(f"{way} without fold {fold}" for fold, way in ways.picks.items() if way != ways.way)
    why = (
        "no other way of the kernel's is surely better" if ways.way == INCUMBENT else f"surely better than {INCUMBENT}"
    )
    return f"{ways.way}: {why} on held-out folds" + (f"; but {picks}" if picks else "")


def way_json(ways: Comparison, scores: Sequence[WayScore]) -> dict[str, Any]:
    """For blend.json."""
    return {
        "way": ways.way,
        "ways": {
            score.name: {"in_sample": score.in_sample, "nested": score.nested.value, "interval": score.nested[1:]}
            for score in scores
        },
    }


def least_valuable_first(blend: Blend, members: np.ndarray, labels: np.ndarray) -> list[str]:
    """The members in the order in which a kernel short of time should drop them.

    Each is the one without which the blend of the rest, its weights brought back to a sum of 1, has the lowest column
    loss on probabilities (members, n, 8); the last one stays.
    """
    order, left = [], list(range(len(members)))
    while len(left) > 1:
        losses = {}
        for place in left:
            rest = [other for other in left if other != place]
            weights = np.array([blend.weights[other] for other in rest])
            if not weights.sum():
                continue  # never down to members that have no part in the blend
            names, shares = tuple(blend.members[other] for other in rest), tuple((weights / weights.sum()).tolist())
            smaller = Blend(names, shares, blend.scale, blend.biases)
            losses[place] = weighted_log_loss(labels, smaller.apply([members[other] for other in rest]), "column")
        # Among equals the one that weighs least.
        first = min(losses, key=lambda place: (losses[place], blend.weights[place]))
        order.append(blend.members[first])
        left.remove(first)
    return [*order, blend.members[left[0]]]
