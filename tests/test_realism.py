"""The realism benchmark: it finds the tissues and the noise of a volume that was made to known numbers."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from cspine.benchmarks.noise_power import RING, flattened, noise_power
from cspine.benchmarks.realism import FREQUENCIES, distance, look_at, realism_table
from cspine.data.geometry import Geometry
from cspine.data.study import Study
from cspine.phantom.writer import Order, make_study

PIXEL_MM, NOISE_HU = 0.8, 12.0
TRUE_HU = {"air": -1000, "fat": -100, "muscle": 55, "trabecular bone": 320, "cortical bone": 900}


def body() -> np.ndarray:
    """HU (z, y, x): a cylinder of fat about one of muscle, with a vertebral body of known cortex and core."""
    y, x = (np.mgrid[:200, :200] - 100) * PIXEL_MM
    image = np.full((200, 200), -1000.0)
    radius = np.hypot(x, y)
    image[radius < 72], image[radius < 60] = -100, 55
    bone = np.hypot(x, y - 4)
    image[bone < 14], image[bone < 11.5] = 900, 320
    noise = np.random.default_rng(0).normal(0, NOISE_HU, (30, 200, 200))
    return np.rint(image + noise).astype(np.int16)


def study_of(volume: np.ndarray) -> Study:
    count = len(volume)
    positions = np.stack([np.zeros(count), np.zeros(count), -np.arange(count) * 1.0], 1)
    x, y = np.eye(3)[:2]
    return Study(volume, Geometry(np.arange(count), positions, x, y, (PIXEL_MM, PIXEL_MM), 1.0), ())


def test_tissues_have_the_hu_they_were_made_with() -> None:
    look = look_at("made", study_of(body()))
    for tissue, hu in TRUE_HU.items():
        values = look.tissues[tissue]
        assert np.median(values) == pytest.approx(hu, abs=25), tissue
        assert len(values) > 500
    for tissue in ("air", "fat", "muscle"):
        assert look.tissues[tissue].mean() == pytest.approx(TRUE_HU[tissue], abs=1.5)
        assert look.tissues[tissue].std() == pytest.approx(NOISE_HU, rel=0.05)
    assert look.noise.sd_hu == pytest.approx(NOISE_HU, rel=0.12)


def test_a_body_of_other_tissue_has_a_distant_histogram() -> None:
    made, other = (look_at(name, study_of(v)) for name, v in (("made", body()), ("other", body() + np.int16(200))))
    for what in ("body", "bone"):
        assert made.histograms[what].sum() == pytest.approx(1)
        assert distance(made.histograms[what], other.histograms[what]) > 0.8


def test_white_noise_is_flat_and_blurred_noise_is_not() -> None:
    white = np.random.default_rng(0).normal(0, 10, (20, 160, 160))
    whole = np.ones((160, 160), bool)
    flat = noise_power([(image, whole) for image in white], (0.4, 0.4))
    assert flat.power.min() > 0.75
    assert flat.sd_hu == pytest.approx(10, rel=0.05)
    blurred = noise_power([(ndimage.gaussian_filter(image, 1.0), whole) for image in white], (0.4, 0.4))
    # The Gaussian of 0.4 mm passes exp(-(2 pi f 0.4)^2) of the power; the innermost ring loses some to the plane.
    expected = np.exp(-((2 * np.pi * 0.4 * RING * np.arange(2, 8)) ** 2))
    np.testing.assert_allclose(blurred.power[1:7] / blurred.power[1], expected / expected[0], atol=0.12)
    assert blurred.mean < 0.6 * flat.mean
    assert flat.at(1.2) is not None
    assert flat.at(1.3) is None


def test_trends_are_no_noise_and_coarse_pixels_tell_none() -> None:
    y, x = np.mgrid[:20, :30]
    assert abs(flattened(3.0 * y - 2.0 * x + 7.0)).max() < 1e-9
    ramp = np.tile(np.arange(100.0), (100, 1))
    assert noise_power([(ramp, np.ones((100, 100), bool))], (1.0, 1.0)).sd_hu < 1e-9
    assert noise_power([(ramp, np.ones((100, 100), bool))], (4.0, 4.0)).squares == 0


def test_the_table_of_a_phantom_beside_itself(tmp_path: Path) -> None:
    order = Order(studies=1, test_studies=0, seed=0, matrix=128, spacing_mm=2.0)
    (plan,) = order.plans()
    make_study(tmp_path, order, plan)
    lines = realism_table([tmp_path / "train_images" / plan.uid] * 2).splitlines()
    assert len({len(line) for line in lines[: 1 + 5 * 5 + 2]}) == 1
    means = {line[:22].strip(): [float(cell) for cell in line[34:].split()] for line in lines if " mean " in line[:34]}
    for tissue, (low, high) in {"air": (-1005, -985), "fat": (-125, -70), "muscle": (35, 75)}.items():
        assert all(low < value < high for value in means[tissue]), (tissue, means[tissue])
    assert all(core < shell for core, shell in zip(means["trabecular bone"], means["cortical bone"], strict=True))
    assert next(line for line in lines if line.startswith("distance")).split()[-2:] == ["0.00", "0.00"]
    assert sum(line.startswith("  power at") for line in lines) == len(FREQUENCIES)
