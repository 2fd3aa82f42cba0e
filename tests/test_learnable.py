"""The learnability benchmark: crops that differ by the fracture alone, and a measure that tells signal from none."""

import numpy as np
import pytest

from cspine.benchmarks.fracture_crops import SAMPLINGS_MM, SIZE_PX, SLICES, Sample, make_sample
from cspine.benchmarks.learnable import learnable_table, predict, stack, train, with_interval
from cspine.metrics import auc


@pytest.mark.parametrize("index", [0, 1, 2])
def test_only_the_fracture_tells_the_classes_apart(index: int) -> None:
    broken, sound = (make_sample(3, index, fractured) for fractured in (True, False))
    assert (broken.kind, broken.gap_mm) == (sound.kind, sound.gap_mm)
    for fine, coarse in ((broken.views[0], sound.views[0]), (broken.views[1], sound.views[1])):
        assert fine.shape == coarse.shape == (3, SLICES, SIZE_PX, SIZE_PX)
        assert fine.dtype == np.uint8
    apart = np.abs(broken.views[0].astype(int) - sound.views[0])
    middle = apart[:, :, SIZE_PX // 4 : -SIZE_PX // 4, SIZE_PX // 4 : -SIZE_PX // 4]
    assert middle.max() > 20
    again = make_sample(3, index, True)
    assert all((a == b).all() for a, b in zip(again.views, broken.views, strict=True))


def simulated(count: int, contrast: int, seed: int) -> list[Sample]:
    """Noise, with a dark line of some contrast in every second sample."""
    rng = np.random.default_rng(seed)
    samples = []
    for k in range(count):
        views = rng.normal(128, 15, (3, SLICES, SIZE_PX, SIZE_PX))
        if k % 2 == 0:
            views[:, :, SIZE_PX // 2 - 1 : SIZE_PX // 2 + 1] -= contrast
        samples.append(Sample(k % 2 == 0, "line", 1.0, tuple(np.uint8(views) for _ in SAMPLINGS_MM)))
    return samples


@pytest.mark.parametrize(("contrast", "low", "high"), [(100, 0.9, 1.0), (0, 0.2, 0.8)])
def test_a_line_is_learnt_and_its_absence_is_not(contrast: int, low: float, high: float) -> None:
    learnt, test = simulated(96, contrast, 0), simulated(40, contrast, 1)
    labels = [np.array([s.fractured for s in samples]) for samples in (learnt, test)]
    network = train(stack(learnt, 0), labels[0], 4, seed=0)
    found = auc(labels[1], predict(network, stack(test, 0)))
    assert found is not None
    assert low <= found <= high


def test_the_interval_covers_the_estimate() -> None:
    samples = simulated(60, 0, 0)
    labels = np.array([s.fractured for s in samples])
    scores = labels + np.random.default_rng(0).normal(0, 1, 60)
    value, low, _, high = with_interval(samples, scores).replace("(", "").replace(")", "").split()
    assert float(low) < float(value) < float(high)
    assert with_interval(samples, labels.astype(float)) == "1.000 (1.000 to 1.000)"


def test_fewer_patients_are_learned_from_and_all_tested_alike() -> None:
    lines = learnable_table(20, seed=0, processes=2, learn_from=[4, 10, 99]).splitlines()
    told = [line for line in lines if " patients  " in line and "(" in line]
    # Of 20 patients 14 are learned from, and more are not there.
    assert [line.split()[0] for line in told] == ["4", "10", "14"]
    whole = next(line for line in lines if line.startswith("0.5 mm: AUC")).split()[3]
    assert told[-1].split()[2] == whole
