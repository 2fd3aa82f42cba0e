"""The scanner: what it does to edges, noise and metal, and scans drawn as the competition's are."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cspine.benchmarks.noise_power import NoisePower, noise_power
from cspine.phantom.acquisition import CUT_SHARE, ODD_COLUMNS, draw_acquisition, draw_shape, draw_spacing
from cspine.phantom.anatomy import draw_patient
from cspine.phantom.canvas import Grid
from cspine.phantom.kernel import Kernel
from cspine.phantom.labels import plan_study
from cspine.phantom.metal import metal_streaks
from cspine.phantom.noise import NoiseSource
from cspine.phantom.scanner import Scanner, draw_scanner, profile_weights, scan

KERNEL = Kernel(blur_mm=0.3, sharpen=0.0)
PLAIN = Scanner(KERNEL, noise_hu=0.0, motion=None)
GRID = Grid((24, 96, 96), 1.0, 0.5, (0.0, 0.0, 24.0))


def neck() -> np.ndarray:
    """A cylinder of muscle 40 mm wide with a rod of bone in it, in air."""
    y, x = np.mgrid[-48:48, -48:48] * 0.5
    image = np.where(np.hypot(x, y) < 20, 50.0, -1000.0)
    image[np.hypot(x - 4, y) < 3] = 600.0
    return np.repeat(image[None].astype(np.float32), 24, 0)


@given(st.floats(0.2, 2.0), st.floats(1.0, 4.0))
def test_the_slice_profile_keeps_the_mean_and_is_as_thick_as_the_slice(spacing_mm: float, ratio: float) -> None:
    weights = profile_weights(spacing_mm, spacing_mm * ratio)
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(weights, weights[::-1], atol=1e-12)
    # The variance of a box of the thickness, but for its sampling in whole slices; the tails add 0.1.
    places = np.arange(len(weights)) - len(weights) // 2
    assert ratio**2 - 1.1 <= 12 * ((weights * places**2).sum() - 0.1) <= ratio**2 + 2.1


def test_thick_slices_mix_their_neighbours_and_thin_ones_do_not() -> None:
    hu = np.full(GRID.shape, 50.0, np.float32)
    hu[12:] = 850.0
    thin, thick = (scan(hu, GRID, mm, PLAIN, np.random.default_rng(0))[:, 48, 48] for mm in (1.0, 3.0))
    assert abs(int(thin[11]) - 50) < 60
    assert 200 < thick[11] < 450
    assert abs(thick[[0, -1]] - [50, 850]).max() <= 1


def noise_slices(kernel: Kernel, thickness_mm: float, count: int = 24) -> np.ndarray:
    """Noise of deviation 20 on slices 1 mm apart, pixels of 0.4 mm."""
    source = NoiseSource(kernel, 0.4, profile_weights(1.0, thickness_mm), (128, 160), np.random.default_rng(0))
    return np.stack([source.slice(20.0, np.ones((128, 160), np.float32)) for _ in range(count)])


def power_of(slices: np.ndarray) -> NoisePower:
    return noise_power([(image, np.ones(image.shape, bool)) for image in slices], (0.4, 0.4))


def test_noise_has_the_deviation_asked_for() -> None:
    for kernel in (Kernel(0.3, 0.5), Kernel(0.6, 0.0)):
        for thickness_mm in (1.0, 2.0):
            assert noise_slices(kernel, thickness_mm).std() == pytest.approx(20, rel=0.05)


def test_noise_power_is_the_ramp_times_the_square_of_the_kernels_transfer() -> None:
    means = []
    for kernel in (Kernel(0.3, 0.5), Kernel(0.6, 0.0)):
        found = power_of(noise_slices(kernel, 1.0))
        expected = found.centres * kernel.transfer(found.centres) ** 2
        # Squares of 10 mm do not tell the innermost ring from the next.
        np.testing.assert_allclose(found.power[1:], (expected / expected.max())[1:], atol=0.13)
        means.append(found.mean)
        assert found.mean == pytest.approx((found.centres * expected).sum() / expected.sum(), rel=0.1)
    assert means[0] > 1.5 * means[1]


def test_a_kernel_shows_contrast_as_its_transfer_says() -> None:
    kernel = Kernel(0.45, 0.5)
    x = np.arange(400) * 0.25
    for frequency in (0.0, 0.2, 0.5):
        wave = np.tile(np.cos(2 * np.pi * frequency * x), (40, 1)).astype(np.float32)
        shown = kernel.apply(wave, 0.25)[20, 50:350]
        # OpenCV cuts its Gaussians off at about three deviations.
        assert abs(shown).max() == pytest.approx(kernel.transfer(np.array(frequency)), abs=0.03)


def test_noise_of_overlapping_slices_is_shared() -> None:
    def correlation(thickness_mm: float, apart: int) -> float:
        slices = noise_slices(KERNEL, thickness_mm).reshape(24, -1)
        return float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(slices, slices[apart:], strict=False)]))

    assert abs(correlation(1.0, 1)) < 0.2
    assert correlation(2.0, 1) > 0.5
    assert abs(correlation(2.0, 6)) < 0.1


def test_starved_rays_leave_streaks_along_the_rows() -> None:
    source = NoiseSource(KERNEL, 0.4, np.ones(1), (128, 160), np.random.default_rng(0))
    quiet, loud = (source.slice(20.0, np.full((128, 160), value, np.float32)) for value in (1.0, 3.5))

    def along(image: np.ndarray, axis: int) -> float:
        a, b = (np.take(image, range(k, k + 100), axis).ravel() for k in (0, 8))
        return float(np.corrcoef(a, b)[0, 1])

    assert abs(along(quiet, 1)) < 0.1
    assert along(loud, 1) > 0.15
    assert along(loud, 0) < 0.1


def test_noise_grows_with_the_way_through_the_body() -> None:
    wide = np.full((3, 200, 200), -1000.0, np.float32)
    wide[:, 30:170, 4:196] = 50
    narrow = np.full((3, 200, 200), -1000.0, np.float32)
    narrow[:, 60:140, 60:140] = 50
    grid = Grid((3, 200, 200), 1.0, 1.5, (0.0, 0.0, 0.0))
    noisy = replace(PLAIN, noise_hu=20.0)
    shoulders, throat = (scan(hu, grid, 1.0, noisy, np.random.default_rng(0))[1] for hu in (wide, narrow))
    assert shoulders[80:120, 60:140].std() > 1.4 * throat[80:120, 80:120].std()
    # Across the shoulders the beam is hardened, which darkens what lies between them.
    assert shoulders[80:120, 60:140].mean() < throat[80:120, 80:120].mean() - 5


def test_a_bone_kernel_overshoots_at_edges_and_a_soft_one_does_not() -> None:
    soft, sharp = (
        scan(neck(), GRID, 1.0, replace(PLAIN, kernel=Kernel(0.3, s)), np.random.default_rng(0))[12, 48]
        for s in (0.0, 0.5)
    )
    assert sharp.max() > soft.max() + 10
    assert abs(int(sharp[40]) - 50) < 25


def test_metal_streaks_lie_on_the_slices_with_metal_and_keep_their_mean() -> None:
    hu = neck()
    hu[10:12, 40:44, 30:34] = 3071
    clean, streaked = (scan(v, GRID, 1.0, PLAIN, np.random.default_rng(0)).astype(float) for v in (neck(), hu))
    change = abs(streaked - clean)
    away = np.s_[60:80, 40:60]
    assert change[11][away].max() > 15
    assert change[2].max() == 0
    assert metal_streaks(neck()[0], 0.5, np.random.default_rng(0)) is None
    streaks = metal_streaks(hu[10], 0.5, np.random.default_rng(0))
    assert streaks is not None
    assert streaks.shape == hu[10].shape
    assert abs(streaks.mean()) < 0.2 * streaks.std()


def test_streaks_of_two_fillings_darken_the_line_between_them() -> None:
    image = np.full((192, 192), 50.0, np.float32)
    for column in (50, 140):
        cv2.circle(image, (column, 96), 6, 3071.0, -1)
    streaks = np.mean([metal_streaks(image, 1.0, np.random.default_rng(k)) for k in range(6)], 0)
    assert streaks[94:99, 70:120].mean() < streaks[40:60, 70:120].mean() - 20


def test_a_patient_who_moves_is_doubled_by_less_than_a_millimetre_on_some_slices() -> None:
    moved = replace(PLAIN, motion=(0.5, 0.2, 0.7, 0.0))
    still, doubled = (scan(neck(), GRID, 1.0, s, np.random.default_rng(0)).astype(float) for s in (PLAIN, moved))
    changed = abs(still - doubled).max((1, 2)) > 50
    assert changed.sum() == 5
    assert changed[12:17].all()


def test_scanners_are_drawn_in_both_kinds() -> None:
    drawn = [draw_scanner(np.random.default_rng(k)) for k in range(600)]
    bone = [s for s in drawn if s.kernel.sharpen]
    assert 0.55 < len(bone) / len(drawn) < 0.75
    assert np.mean([s.noise_hu for s in bone]) > 1.4 * np.mean([s.noise_hu for s in drawn if not s.kernel.sharpen])
    moved = [s.motion for s in drawn if s.motion]
    assert 0.02 < len(moved) / len(drawn) < 0.09
    assert max(np.hypot(*m[2:]) for m in moved) <= 1.0


def test_scans_follow_the_competition() -> None:
    rng = np.random.default_rng(0)
    spacing, thickness = np.array([draw_spacing(rng) for _ in range(4000)]).T
    assert thickness.min() >= 0.488
    assert thickness.max() <= 1.0
    assert np.mean(spacing < thickness - 1e-9) == pytest.approx(40 / 87, abs=0.03)
    assert np.median(spacing) == pytest.approx(0.63, abs=0.06)
    shapes = [draw_shape(512, rng) for _ in range(4000)]
    assert {shape for shape in shapes if shape != (512, 512)} == {(768, 768), (512, 512 + ODD_COLUMNS)}
    assert 0.02 < np.mean([shape != (512, 512) for shape in shapes]) < 0.06


def test_extents_hold_all_levels_but_in_a_few_and_the_label_does_not_show() -> None:
    labels, counts, extents, cut = [], [], [], []
    for index in range(800):
        plan = plan_study(1, "train", index)
        spine, _, _ = draw_patient(plan.rng("anatomy"))
        grid = draw_acquisition(spine, plan, 512, None).grid
        z = grid.z_mm()
        inside = [z[-1] < frame.origin[2] < z[0] for frame in spine.frames[:7]]
        assert all(inside[level] for level in plan.levels)
        cut.append(not all(inside))
        labels.append(bool(plan.levels))
        counts.append(len(z))
        extents.append(z[0] - z[-1])
    assert 0.002 < np.mean(cut) < 2 * CUT_SHARE
    assert np.median(counts) == pytest.approx(314, rel=0.1)
    assert np.median(extents) == pytest.approx(198, rel=0.05)
    positive = np.array(labels)
    for values in (np.array(counts), np.array(extents)):
        ranks = values.argsort().argsort()
        auc = (ranks[positive].mean() - (positive.sum() - 1) / 2) / (~positive).sum()
        # Four standard errors of an AUC over 800 studies.
        assert abs(auc - 0.5) < 0.082
