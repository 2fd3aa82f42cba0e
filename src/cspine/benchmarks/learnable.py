"""Can the phantom's fractures be learnt, and are they lost where the sampling is too coarse?

Every patient gives one crop of CROP_MM about a place drawn as fractures are. In half of the patients the fracture is
painted there, in the others not; everything else is drawn alike. The same small network learns from both samplings,
and, for how much data it takes, from fewer of the patients in as many steps.
"""

import math
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch
from torch import nn

from cspine.benchmarks.fracture_crops import CROP_MM, SAMPLINGS_MM, SLICES, Sample, make_samples
from cspine.config import Model
from cspine.engine.determinism import set_determinism
from cspine.metrics import auc
from cspine.models.registry import create_model

# Chosen on the validation patients: of timm's smallest encoders, the one that learns most in the minutes there are.
BACKBONE, EPOCHS, BATCH, RATE = "test_resnet", 10, 32, 3e-3
TRAIN_SHARE, VALIDATION_SHARE = 0.7, 0.1
RESAMPLES = 1000


def learnable_table(patients: int, seed: int, processes: int, learn_from: Sequence[int] = ()) -> str:
    """AUC on patients that were not trained on, per sampling and type, with a 95 % interval by bootstrap.

    Besides, the AUC of having learned from only so many patients; all are tested on the same.
    """
    samples = make_samples(patients, seed, processes)
    first, last = int(TRAIN_SHARE * patients), int((TRAIN_SHARE + VALIDATION_SHARE) * patients)
    parts = samples[:first], samples[first:last], samples[last:]
    lines = ["{} patients to train, {} to validate, {} to test; ".format(*map(len, parts)) + f"{CROP_MM:g} mm crops"]
    # A small network gains nothing from a second thread, so that the samplings are learnt side by side.
    with ProcessPoolExecutor(min(processes, 2), multiprocessing.get_context("spawn")) as pool:
        work = {
            (count, which): pool.submit(learn, parts[0][:count], *parts[1:], which, seed, EPOCHS * first / count)
            for count in sorted({first, *(count for count in learn_from if count < first)})
            for which in range(len(SAMPLINGS_MM))
        }
        found = {key: future.result() for key, future in work.items()}
    learnt = [found[first, which] for which in range(len(SAMPLINGS_MM))]
    for sampling, (seen, scores) in zip(SAMPLINGS_MM, learnt, strict=True):
        lines.append(f"{sampling:g} mm: AUC {with_interval(parts[2], scores)}; validation {seen:.3f}")
    lines += ["", f"{'type':16}{'n':>5}" + "".join(f"{f'{s:g} mm':>9}" for s in SAMPLINGS_MM)]
    lines += _by_kind(parts[2], [scores for _, scores in learnt])
    lines += ["", f"{'learned from':16}" + "".join(f"{f'{s:g} mm':>26}" for s in SAMPLINGS_MM)]
    for count in sorted({count for count, _ in found}):
        aucs = [with_interval(parts[2], found[count, which][1]) for which in range(len(SAMPLINGS_MM))]
        lines.append(f"{f'{count} patients':16}" + "".join(f"{value:>26}" for value in aucs))
    return "\n".join(lines)


def learn(
    learnt: list[Sample], validation: list[Sample], test: list[Sample], which: int, seed: int, epochs: float
) -> tuple[float, np.ndarray]:
    """AUC on the validation patients, and the logits of the test patients, at one sampling."""
    torch.set_num_threads(1)
    network = train(stack(learnt, which), _labels(learnt), round(epochs), seed)
    seen = auc(_labels(validation), predict(network, stack(validation, which)))
    return float("nan") if seen is None else seen, predict(network, stack(test, which))


def stack(samples: list[Sample], which: int) -> torch.Tensor:
    """The views of every sample at one sampling, (n, 3, slices, y, x) uint8."""
    return torch.from_numpy(np.stack([sample.views[which] for sample in samples]))


def train(images: torch.Tensor, labels: np.ndarray, epochs: int, seed: int) -> nn.Module:
    """A network trained from scratch on views (n, 3, slices, y, x) and labels (n,)."""
    set_determinism(seed)
    network = create_model(Model(backbone=BACKBONE, dropout=0.2), SLICES, 1)
    targets = torch.from_numpy(labels.astype(np.float32))
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.02)
    steps = epochs * math.ceil(len(images) / BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    for _ in range(epochs):
        network.train()
        for batch in torch.randperm(len(images)).split(BATCH):
            logits = _logits(network, _augmented(images[batch]))
            loss = nn.functional.binary_cross_entropy_with_logits(logits, targets[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return network


def predict(network: nn.Module, images: torch.Tensor) -> np.ndarray:
    """The logit of every sample."""
    network.eval()
    with torch.inference_mode():
        return torch.cat([_logits(network, part) for part in images.split(4 * BATCH)]).numpy()


def with_interval(samples: list[Sample], scores: np.ndarray) -> str:
    """AUC and its 95 % interval over resampled patients."""
    labels, rng = _labels(samples), np.random.default_rng(0)
    draws = [rng.integers(0, len(labels), len(labels)) for _ in range(RESAMPLES)]
    found = [value for draw in draws if (value := auc(labels[draw], scores[draw])) is not None]
    low, high = np.percentile(found, [2.5, 97.5])
    return f"{auc(labels, scores):.3f} ({low:.3f} to {high:.3f})"


def _by_kind(samples: list[Sample], scores: list[np.ndarray]) -> list[str]:
    """One line a type: its positives against all negatives."""
    negative = ~_labels(samples)
    lines = []
    for kind in sorted({s.kind for s in samples if s.fractured}):
        positive = np.array([s.fractured and s.kind == kind for s in samples])
        used = positive | negative
        found = "".join(f"{auc(positive[used], values[used]):9.3f}" for values in scores)
        lines.append(f"{kind:16}{int(positive.sum()):5}{found}")
    return lines


def _labels(samples: list[Sample]) -> np.ndarray:
    return np.array([sample.fractured for sample in samples])


def _logits(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """One logit a sample from (n, 3, slices, y, x): of its views, through one network, the clearest counts most."""
    return network(images.flatten(0, 1)).view(len(images), -1).logsumexp(1)


def _augmented(images: torch.Tensor) -> torch.Tensor:
    """The batch mirrored and shifted at random, by up to 4 pixels."""
    if torch.rand(1) < 0.5:
        images = images.flip(-1)
    if torch.rand(1) < 0.5:
        images = images.flip(-2)
    down, right = torch.randint(-4, 5, (2,)).tolist()
    return images.roll((down, right), (-2, -1))
