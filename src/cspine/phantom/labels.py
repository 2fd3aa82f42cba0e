"""What every phantom study is, before a voxel exists: UID, labels, and which files it gets.

A study depends on (seed, split, index) alone, never on how many studies there are. Shares are taken with Weyl sequences
(multiples of an irrational number modulo 1), so that even ten studies hold about the right number of each kind. The
irrational numbers are linearly independent over the rationals, hence the kinds are independent of each other.
"""

import math
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from cspine.anatomy import LEVELS

UID_ROOT = "1.2.826.0.1.3680043"
UID_PRIME = 9_999_991
SPLITS = ("train", "test")

POSITIVE_SHARE = 961 / 2019
# Positive patients of the competition by their number of fractured levels, 1 to 6.
LEVEL_COUNTS = np.array([623, 239, 64, 26, 7, 2]) / 961
# Draw weights of C1..C7, fitted so that the marginals after `draw_levels` are 146, 285, 73, 108, 162, 277, 393 of 961.
LEVEL_WEIGHTS = np.array([0.0949, 0.2039, 0.0447, 0.0699, 0.1041, 0.1833, 0.2992])
ADJACENT_BOOST = 1.6

ASCENDING_SHARE = 0.1
START_AT_TWO_SHARE = 0.1
# What else differs between files: value -> share; how the competition's divide is not known.
SYNTAX_SHARES = {"implicit": 0.2, "explicit": 0.6, "jpeg_lossless": 0.2}
INTERCEPT_SHARES = {-1024: 0.88, 0: 0.06, -1000: 0.06}
# Stored outside a round field of view; the header tells the first, anonymised ones often have lost it.
PADDING_SHARES = {None: 0.85, -2000: 0.1, -1500: 0.05}
DECLARED_PADDING = -2000
MONOCHROME1_SHARE = 0.03


@dataclass(frozen=True)
class Storage:
    """How a study's files store their pixels."""

    syntax: str  # a key of SYNTAX_SHARES
    signed: bool
    intercept_hu: int
    padding: int | None  # the stored value outside the field of view, None where the field is square
    inverted: bool  # MONOCHROME1, which by the standard concerns the display only


@dataclass(frozen=True)
class StudyPlan:
    """One study to make; `levels` are the indices (0 = C1) of the fractured levels."""

    seed: int
    split: str
    index: int
    uid: str
    levels: tuple[int, ...]
    has_mask: bool
    has_boxes: bool
    ascending: bool
    first_number: int
    storage: Storage

    def rng(self, stream: str) -> np.random.Generator:
        """The study's random numbers for one purpose; the streams are independent of each other and of the labels."""
        return _generator(self.seed, self.split, self.index, stream)


def plan_study(seed: int, split: str, index: int, mask_share: float = 0.5, box_share: float = 0.5) -> StudyPlan:
    """Everything about study `index` of a split that can be known without rendering it."""
    offsets = _generator(seed, split, 0, "offsets").random(10)

    def turn(which: int, root: int) -> float:
        return float((offsets[which] + index * math.sqrt(root)) % 1.0)

    golden = (offsets[0] + index * (math.sqrt(5) - 1) / 2) % 1.0
    positive = golden < POSITIVE_SHARE
    levels = draw_levels(_generator(seed, split, index, "labels")) if positive else ()
    return StudyPlan(
        seed=seed,
        split=split,
        index=index,
        uid=study_uid(seed, split, index),
        levels=levels,
        has_mask=split == "train" and turn(1, 2) < mask_share,
        has_boxes=split == "train" and positive and turn(2, 3) < box_share,
        ascending=turn(3, 7) < ASCENDING_SHARE,
        first_number=2 if turn(4, 11) < START_AT_TWO_SHARE else 1,
        storage=_storage(turn(5, 13), turn(6, 17), turn(7, 19), turn(8, 23), turn(9, 29)),
    )


def _storage(syntax: float, sign: float, intercept: float, padding: float, inverted: float) -> Storage:
    """From one turn, in [0, 1), for each property."""
    intercept_hu, padded = _share(INTERCEPT_SHARES, intercept), _share(PADDING_SHARES, padding)
    return Storage(
        syntax=_share(SYNTAX_SHARES, syntax),
        # Values below zero occur, so that unsigned integers would not do.
        signed=sign < 0.5 or padded is not None or intercept_hu != -1024,
        intercept_hu=intercept_hu,
        padding=padded,
        inverted=inverted < MONOCHROME1_SHARE,
    )


def _share(shares: dict[Any, float], turn: float) -> Any:
    """The value whose part of [0, 1) holds the turn."""
    place = int(np.searchsorted(np.cumsum(list(shares.values())), turn, side="right"))
    return list(shares)[min(place, len(shares) - 1)]


def draw_levels(rng: np.random.Generator) -> tuple[int, ...]:
    """The fractured levels of a positive patient; neighbours of a fractured level are likelier to break too."""
    count = 1 + int(rng.choice(len(LEVEL_COUNTS), p=LEVEL_COUNTS))
    chosen: list[int] = []
    while len(chosen) < count:
        weights = LEVEL_WEIGHTS.copy()
        for level in chosen:
            weights[max(level - 1, 0) : level + 2] *= ADJACENT_BOOST
        weights[chosen] = 0
        chosen.append(int(rng.choice(len(LEVELS), p=weights / weights.sum())))
    return tuple(sorted(chosen))


def study_uid(seed: int, split: str, index: int) -> str:
    """A UID like the competition's; distinct within a dataset because the map modulo a prime is one-to-one."""
    factor, shift = np.random.SeedSequence([seed, 7]).generate_state(2, np.uint64) % np.uint64(UID_PRIME - 1)
    place = 2 * index + SPLITS.index(split)
    return f"{UID_ROOT}.{1 + ((int(factor) + 1) * place + int(shift)) % UID_PRIME}"


def _generator(seed: int, split: str, index: int, stream: str) -> np.random.Generator:
    words = [seed, SPLITS.index(split), index, zlib.crc32(stream.encode())]
    return np.random.default_rng(np.random.SeedSequence(words))
