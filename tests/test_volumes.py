"""Windows cover every plane and come together again; transforms move labels with the voxels."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cspine.config import Config, Data, Preprocess, Volume, VolumeAugment
from cspine.data.augment3d import Pose, VolumeAugmenter, cut_window, put_window, rotation, sample, with_density
from cspine.data.geometry import Geometry
from cspine.data.volumes import VolumeSamples, WindowSamples, join_windows, study_windows, window_starts

STILL = VolumeAugment(
    zoom=0, rotate_deg=0, flip=0, shift_y_mm=0, shift_x_mm=0, shift_z_mm=0, gain=0, offset=0, gamma=0, blur_mm=0,
    bone=0, noise=0, cut_outs=0, cut_ends=0, cut_field=0,
)  # fmt: skip
GRID = Volume(voxel_mm=2.0, window_px=(16, 16, 16), windows_per_study=3)


@given(planes=st.integers(1, 300), depth=st.sampled_from([16, 32, 64]), overlap=st.floats(0, 0.9))
def test_windows_cover_every_plane_and_overlap_as_asked(planes: int, depth: int, overlap: float) -> None:
    starts = window_starts(planes, depth, overlap)
    covered = {plane for start in starts for plane in range(start, start + depth)}
    assert covered >= set(range(planes))
    assert (np.diff(starts) <= max(1, round(depth * (1 - overlap)))).all()
    if planes > depth:
        assert (starts[0], starts[-1]) == (0, planes - depth)


@given(planes=st.integers(1, 90), overlap=st.floats(0, 0.8))
def test_what_the_windows_agree_on_is_the_whole(planes: int, overlap: float) -> None:
    truth = np.random.default_rng(planes).random((planes, 7)).astype(np.float32)
    starts = window_starts(planes, 16, overlap)
    windows = np.full((len(starts), 16, 7), 9.0, np.float32)  # 9 is beyond the study and must not show
    for window, start in zip(windows, starts, strict=True):
        for plane in range(max(0, start), min(planes, start + 16)):
            window[plane - start] = truth[plane]
    assert np.allclose(join_windows(windows, starts, planes), truth, atol=1e-6)


def test_where_windows_differ_the_one_whose_middle_is_near_counts() -> None:
    joined = join_windows(np.stack([np.zeros((16, 1)), np.ones((16, 1))]), [0, 8], 24)[:, 0]
    assert (joined[:8] == 0).all()
    assert (joined[16:] == 1).all()
    assert (np.diff(joined[7:17]) > 0).all()


@given(start=st.integers(-30, 50), planes=st.integers(1, 40), side=st.integers(1, 40))
def test_a_window_is_the_volume_where_there_is_one(start: int, planes: int, side: int) -> None:
    volume = np.arange(1, planes * side * side + 1).reshape(1, planes, side, side)
    window = cut_window(volume, start, (16, 16, 16))
    offset = (side - 16) // 2
    for z, y, x in np.random.default_rng(0).integers(0, 16, (20, 3)):
        source = np.array([z + start, y + offset, x + offset])
        inside = (source >= 0).all() and (source < [planes, side, side]).all()
        assert window[0, z, y, x] == (volume[0, *source] if inside else 0)


def test_an_idle_augmenter_gives_the_middle_as_it_is() -> None:
    volume = np.random.default_rng(0).integers(0, 256, (2, 16, 20, 20), np.uint8)
    pose = Pose(np.zeros(3), np.eye(3))
    assert np.allclose(sample(volume, pose, (16, 16, 16), "bilinear"), cut_window(volume, 0, (16, 16, 16)), atol=0.01)


@pytest.mark.parametrize("change", [{}, {"zoom": 0.4}, {"rotate_deg": 20.0}, {"shift_y_mm": 8.0}, {"flip": 1.0}])
def test_labels_move_with_the_voxels(change: dict) -> None:
    """The volume is bright where the label is; after any move it still is."""
    levels = np.zeros((24, 24, 24), np.uint8)
    levels[8:16, 6:16, 4:12] = 5
    augment = VolumeAugmenter(replace(STILL, **change), GRID)
    seen = set()
    for seed in range(6):
        image, target = augment(levels[None] * 40, levels, seed)
        sure = np.abs(image[0].astype(int) - 100) > 60
        assert np.array_equal(image[0][sure] > 100, target[sure] == 5)
        again = augment(levels[None] * 40, levels, seed)
        assert np.array_equal(image, again[0])
        assert np.array_equal(target, again[1])
        seen.add(image.tobytes())
    assert len(seen) == 6


def test_zoom_and_flip_do_what_they_say() -> None:
    levels = np.zeros((24, 24, 24), np.uint8)
    levels[8:16, 8:16, 9:14] = 1
    sizes = [
        np.count_nonzero(VolumeAugmenter(replace(STILL, zoom=0.4), GRID)(levels[None], levels, seed)[1]) / 320
        for seed in range(40)
    ]
    assert 1.4**-3 * 0.6 < min(sizes) < 0.6
    assert 1.7 < max(sizes) < 1.4**3 * 1.4
    flipped = sample(levels[None], Pose(np.zeros(3), np.diag([1.0, 1, -1])), (24, 24, 24), "nearest")[0]
    assert np.array_equal(flipped, levels[:, :, ::-1])


def test_a_pose_takes_offsets_in_the_window_to_offsets_in_the_volume() -> None:
    volume = np.zeros((1, 9, 11, 13))
    middle, offset = np.array([4, 5, 6]), np.array([1.0, -2, 0])
    turn = np.rint(rotation(np.array([90.0, 0, 0])))
    source = middle + offset + turn @ [1, 2, 0]
    volume[0, *source.astype(int)] = 1
    found = sample(volume, Pose(offset, turn), (5, 5, 5), "nearest")[0]
    assert np.argwhere(found).tolist() == [[3, 4, 2]]  # the window's middle is [2, 2, 2]


def test_density_moves_bone_alone_and_by_hand() -> None:
    grey = np.array([0.0, 80.0, 84.15, 100.0, 255.0])  # soft tissue, 60 HU, is 84.15 in -600..1400
    assert np.allclose(with_density(grey, 2.0, "wide"), [0, 80, 84.15, 115.85, 425.85])
    assert np.allclose(with_density(grey, 0.5, "-600..1400")[:3], grey[:3])


def test_a_rotation_keeps_lengths_and_turns_about_its_axis() -> None:
    turn = rotation(np.array([30.0, 10, -20]))
    assert np.allclose(turn @ turn.T, np.eye(3))
    assert np.linalg.det(turn) == pytest.approx(1)
    assert np.allclose(rotation(np.array([40.0, 0, 0])) @ [1, 0, 0], [1, 0, 0])  # about z, the first axis


@pytest.mark.parametrize(
    "change", [{"cut_outs": 3}, {"bone": 1.0}, {"gain": 0.2, "offset": 0.1, "gamma": 0.3}, {"noise": 0.1}]
)
def test_repainting_leaves_labels_alone(change: dict) -> None:
    rng = np.random.default_rng(0)
    levels, pixels = rng.integers(0, 8, (16, 16, 16), np.uint8), rng.integers(0, 256, (1, 16, 16, 16), np.uint8)
    # Equal draws of the place, whatever is drawn after it.
    plain = [VolumeAugmenter(STILL, GRID)(pixels, levels, seed) for seed in range(4)]
    painted = [VolumeAugmenter(replace(STILL, **change), GRID)(pixels, levels, seed) for seed in range(4)]
    assert all(np.array_equal(one[1], other[1]) for one, other in zip(plain, painted, strict=True))
    assert any(not np.array_equal(one[0], other[0]) for one, other in zip(plain, painted, strict=True))


def test_cut_ends_and_fields_take_labels_and_voxels_alike() -> None:
    levels, pixels = np.full((16, 16, 16), 2, np.uint8), np.full((1, 16, 16, 16), 200, np.uint8)
    augment = VolumeAugmenter(replace(STILL, cut_ends=1.0, cut_field=1.0), GRID)
    shares = []
    for seed in range(10):
        image, target = augment(pixels, levels, seed)
        assert (image[0][target == 0] <= 100).all()  # half at most, where the window hangs over the study's end
        assert not target[image[0] == 0].any()
        shares.append(np.mean(target == 2))
    assert 0.1 < min(shares) < max(shares) < 0.95


@dataclass
class FakeStudy:
    """Slices 2 mm apart whose grey value is their number."""

    count: int

    @property
    def volume(self) -> np.ndarray:
        values = np.arange(self.count, dtype=np.uint8)
        return np.broadcast_to(values[:, None, None, None], (self.count, 1, 16, 16)).copy()

    @property
    def levels(self) -> np.ndarray:
        return (self.volume[:, 0] % 8).astype(np.uint8)

    @property
    def geometry(self) -> Geometry:
        positions = np.column_stack([np.zeros((self.count, 2)), -2.0 * np.arange(self.count)])
        return Geometry(np.arange(self.count), positions, np.eye(3)[0], np.eye(3)[1], (2.0, 2.0), 1.0)


def config(**changes: object) -> Config:
    made = Config(
        name="v",
        task="vertebra/volume",
        volume=GRID,
        volume_augment=STILL,
        preprocess=Preprocess(field_mm=32, size_px=16),
        data=Data(neighbours=0),
    )
    return replace(made, **changes)


def test_prediction_samples_are_the_windows_of_one_study_after_another() -> None:
    studies = [FakeStudy(10), FakeStudy(40)]
    samples = WindowSamples(studies, config())  # type: ignore[arg-type]
    assert [len(starts) for starts in samples.starts] == [1, 4]
    assert len(samples) == 5
    last = samples[4, -1]["image"]
    assert last.shape == (1, 16, 16, 16)
    assert last[0, :, 8, 8].tolist() == list(range(24, 40))
    first = samples[0, -1]["image"][0, :, 8, 8].tolist()
    assert first == [0, 0, 0, *range(10), 0, 0, 0]
    windows, starts = study_windows(samples.grids[1].sample_pixels(studies[1].volume), config())
    assert starts == samples.starts[1]
    assert np.array_equal(windows[-1], last.numpy())


def test_training_samples_come_several_a_study_with_their_labels() -> None:
    samples = VolumeSamples([FakeStudy(20), FakeStudy(40)], config())  # type: ignore[list-item]
    drawn = samples.draw(np.random.default_rng(0))
    assert sorted(drawn.tolist()) == [0, 0, 0, 1, 1, 1]
    plain = samples[0, -1]
    assert plain["image"].shape == (1, 16, 16, 16)
    assert np.array_equal(plain["image"][0].numpy() % 8, plain["levels"].numpy())
    assert not np.array_equal(samples[1, 5]["image"], samples[1, 6]["image"])


SIDES = st.tuples(*[st.integers(1, 9)] * 3)


@given(SIDES, SIDES, st.integers(-6, 6))
def test_a_window_is_put_back_where_it_was_cut(shape, window_px, start: int) -> None:
    volume = np.arange(1, 1 + np.prod(shape)).reshape(1, *shape)
    window = cut_window(volume, start, window_px)
    back = put_window(window, start, shape)
    assert np.array_equal(back[back > 0], volume[back > 0])
    assert (back > 0).sum() == (window > 0).sum()


def test_blur_is_the_same_along_x_and_y_and_another_across_the_planes() -> None:
    point = np.zeros((1, 16, 16, 16), np.uint8)
    point[:, 7:9, 7:9, 7:9] = 255
    augmenter = VolumeAugmenter(replace(STILL, blur_mm=6.0, cut_ends=0), GRID)
    seen = [augmenter(point, point[0], seed)[0][0].astype(float) for seed in range(8)]
    assert all(np.array_equal(image, image.swapaxes(1, 2)) for image in seen)
    across = [np.ptp(image.sum((1, 2))) / np.ptp(image.sum((0, 1))) for image in seen]
    assert max(across) > 1.5 * min(across)
