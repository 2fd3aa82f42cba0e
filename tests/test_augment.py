"""Each transform can be switched off, follows from the seed, and treats channels, masks and boxes alike."""

from dataclasses import fields, replace

import numpy as np
import pytest

from cspine.config import Augment
from cspine.data.augment import Augmenter

NAMES = [item.name for item in fields(Augment) if item.name not in ("share", "mixup")]
OFF = Augment(**dict.fromkeys(NAMES, 0.0))
STRENGTHS = {"rotate_deg": 20.0, "horizontal_flip": 1.0, "vertical_flip": 1.0, "blur_px": 2.0}
MOVES = ("horizontal_flip", "vertical_flip", "rotate_deg", "shift_x", "shift_y", "scale", "distortion")
MASK = np.zeros((48, 48), np.uint8)
MASK[12:30, 8:20] = 1
BOXES = np.array([[8.0, 12.0, 12.0, 18.0]])


def image(channels: int) -> np.ndarray:
    """Every channel the same noise, brighter where the mask is."""
    grey = np.random.default_rng(0).integers(30, 60, (48, 48, 1), np.uint8)
    grey[MASK > 0] += 150
    return grey.repeat(channels, axis=2)


def only(name: str) -> Augmenter:
    return Augmenter(replace(OFF, **{name: STRENGTHS.get(name, 0.3)}))


def test_all_off_changes_nothing() -> None:
    assert np.array_equal(Augmenter(OFF)(image(3), 1).image, image(3))


@pytest.mark.parametrize("channels", [1, 3, 15, 75])
@pytest.mark.parametrize("name", NAMES)
def test_each_switch_does_something_to_all_channels_and_equal_seeds_the_same(name: str, channels: int) -> None:
    augment = only(name)
    first, again = augment(image(channels), 7), augment(image(channels), 7, MASK, BOXES)
    assert first.image.shape == (48, 48, channels)
    assert first.image.dtype == np.uint8
    assert np.array_equal(first.image, again.image), "what comes along must not change the draw"
    # A single draw may be too faint to change a pixel.
    assert any((augment(image(channels), seed).image != image(channels)).any() for seed in range(5))
    assert first.mask is None
    assert first.boxes is None
    if name == "noise":  # independent between channels, of one strength
        spreads = first.image[MASK == 0].std(axis=0)
        assert channels == 1 or (0 < np.ptp(spreads) < 3)
    else:
        assert (first.image == first.image[..., :1]).all()


def test_flips_are_exact() -> None:
    assert np.array_equal(only("horizontal_flip")(image(3), 0).image, image(3)[:, ::-1])
    assert np.array_equal(only("vertical_flip")(image(3), 0).image, image(3)[::-1])


def test_shifts_move_along_their_own_axis() -> None:
    for seed in range(5):
        sideways, along = only("shift_x")(image(1), seed, MASK).mask, only("shift_y")(image(1), seed, MASK).mask
        assert sideways is not None
        assert along is not None
        assert np.array_equal(sideways.any(axis=1), MASK.any(axis=1))
        assert np.array_equal(along.any(axis=0), MASK.any(axis=0))


def test_transforms_draw_independently() -> None:
    augment = Augmenter(replace(OFF, horizontal_flip=0.5, vertical_flip=0.5))
    outcomes = set()
    for seed in range(40):
        moved = augment(image(1), seed, MASK).mask
        assert moved is not None
        outcomes.add((bool(moved[20, 10]), bool(moved[13, 10] or moved[13, 37])))
    assert len(outcomes) == 4


@pytest.mark.parametrize("name", MOVES)
def test_masks_and_boxes_follow_the_image(name: str) -> None:
    augment = only(name)
    for seed in range(10):
        moved = augment(image(1), seed, MASK, BOXES)
        assert moved.mask is not None
        assert moved.boxes is not None
        inside, bright = moved.mask > 0, moved.image[..., 0] > 120
        assert np.count_nonzero(inside != bright) <= 0.15 * max(1, np.count_nonzero(bright))
        if not inside.any():
            assert len(moved.boxes) == 0
            continue
        (x, y, width, height) = moved.boxes[0]
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        # A rotated box is as wide as its corners, so it may only be larger than what it holds.
        assert x <= columns[0] + 1.5
        assert y <= rows[0] + 1.5
        assert x + width >= columns[-1] - 0.5
        assert y + height >= rows[-1] - 0.5
        if name != "rotate_deg":
            assert (x, y) == (pytest.approx(columns[0], abs=2), pytest.approx(rows[0], abs=2))


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(MOVES)))
def test_grey_transforms_leave_masks_and_boxes(name: str) -> None:
    for seed in range(5):
        painted = only(name)(image(1), seed, MASK, BOXES)
        assert painted.mask is not None
        assert np.array_equal(painted.mask, MASK)
        assert np.allclose(painted.boxes, BOXES)


def test_masks_keep_their_channels() -> None:
    masks = np.stack([MASK, 1 - MASK, MASK], axis=-1)
    moved = only("shift_x")(image(3), 3, masks).mask
    assert moved is not None
    assert moved.shape == (48, 48, 3)
    assert np.array_equal(moved[..., 0], moved[..., 2])
    assert set(np.unique(moved)) == {0, 1}


@pytest.mark.parametrize("settings", [OFF, replace(OFF, horizontal_flip=1.0)])
def test_boxes_are_clipped_and_those_outside_dropped(settings: Augment) -> None:
    boxes = np.array([[-6.0, 40.0, 10.0, 20.0], [60.0, 4.0, 10.0, 10.0]])
    kept = Augmenter(settings)(image(1), 0, boxes=boxes).boxes
    assert kept is not None
    expected = [[44.0 if settings.horizontal_flip else 0.0, 40.0, 4.0, 8.0]]
    assert np.allclose(kept, expected)
    none = Augmenter(settings)(image(1), 0, boxes=np.zeros((0, 4))).boxes
    assert none is not None
    assert none.shape == (0, 4)


def test_share_is_the_part_of_the_samples_that_is_transformed() -> None:
    augment = Augmenter(replace(OFF, horizontal_flip=1.0, share=0.3))
    whole = Augmenter(replace(OFF, horizontal_flip=1.0))
    changed = [not np.array_equal(augment(image(1), seed).image, image(1)) for seed in range(400)]
    assert 0.2 < np.mean(changed) < 0.4
    assert changed == [augment.takes(seed) for seed in range(400)]
    assert all(whole.takes(seed) for seed in range(20))
    assert not any(Augmenter(replace(OFF, share=0.0)).takes(seed) for seed in range(20))
