"""Can the phantom's fractures be learnt, and are they lost where the sampling is too coarse?

Every patient gives one crop of CROP_MM about a place drawn as fractures are. In half of the patients the fracture is
painted there, in the others not; everything else is drawn alike. The same small network learns from both samplings.
"""

import math

import numpy as np
import torch
from torch import nn

from cspine.benchmarks.fracture_crops import CROP_MM, SAMPLINGS_MM, SLICES, Sample, make_samples
from cspine.config import Model
from cspine.engine.determinism import set_determinism
from cspine.metrics import auc
from cspine.models.registry import create_model

TRAIN_SHARE, VALIDATION_SHARE = 0.6, 0.1
BACKBONE = "test_resnet"
BATCH, RATE = 32, 2e-3
RESAMPLES = 1000


def learnable_table(patients: int, epochs: int, seed: int, processes: int) -> str:
    """AUC on patients that were not trained on, per sampling and type, with a 95 % interval by bootstrap."""
    samples = make_samples(patients, seed, processes)
    first, last = int(TRAIN_SHARE * patients), int((TRAIN_SHARE + VALIDATION_SHARE) * patients)
    test = samples[last:]
    lines = [f"{first} patients to train, {last - first} to validate, {len(test)} to test; crops of {CROP_MM:g} mm"]
    scores = []
    for which, sampling in enumerate(SAMPLINGS_MM):
        network, seen = train(samples[:first], samples[first:last], which, epochs, seed)
        scores.append(predict(network, stack(test, which)))
        lines.append(f"{sampling:g} mm: AUC {with_interval(test, scores[-1])}; validation {seen:.3f}")
    lines += ["", f"{'type':16}{'n':>5}" + "".join(f"{f'{s:g} mm':>9}" for s in SAMPLINGS_MM)]
    return "\n".join([*lines, *_by_kind(test, scores)])


def stack(samples: list[Sample], which: int) -> torch.Tensor:
    """The views of every sample at one sampling, (n, 3, slices, y, x) uint8."""
    return torch.from_numpy(np.stack([sample.views[which] for sample in samples]))


def train(
    learnt: list[Sample], validation: list[Sample], which: int, epochs: int, seed: int
) -> tuple[nn.Module, float]:
    """A network trained on one sampling, and its AUC on the validation patients after the last epoch."""
    set_determinism(seed)
    network = create_model(Model(backbone=BACKBONE, dropout=0.2), SLICES, 1)
    images, labels = stack(learnt, which), torch.tensor([float(s.fractured) for s in learnt])
    steps = epochs * math.ceil(len(learnt) / BATCH)
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    for _ in range(epochs):
        network.train()
        for batch in torch.randperm(len(learnt)).split(BATCH):
            loss = nn.functional.binary_cross_entropy_with_logits(
                _logits(network, _augmented(images[batch])), labels[batch]
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    seen = auc(np.array([s.fractured for s in validation]), predict(network, stack(validation, which)))
    return network, float("nan") if seen is None else seen


def predict(network: nn.Module, images: torch.Tensor) -> np.ndarray:
    """The logit of every sample."""
    network.eval()
    with torch.inference_mode():
        return torch.cat([_logits(network, part) for part in images.split(4 * BATCH)]).numpy()


def with_interval(samples: list[Sample], scores: np.ndarray) -> str:
    """AUC and its 95 % interval over resampled patients."""
    labels, rng = np.array([s.fractured for s in samples]), np.random.default_rng(0)
    draws = [rng.integers(0, len(labels), len(labels)) for _ in range(RESAMPLES)]
    found = [value for draw in draws if (value := auc(labels[draw], scores[draw])) is not None]
    low, high = np.percentile(found, [2.5, 97.5])
    return f"{auc(labels, scores):.3f} ({low:.3f} to {high:.3f})"


def _by_kind(samples: list[Sample], scores: list[np.ndarray]) -> list[str]:
    """One line a type: its positives against all negatives."""
    negative = np.array([not s.fractured for s in samples])
    lines = []
    for kind in sorted({s.kind for s in samples if s.fractured}):
        positive = np.array([s.fractured and s.kind == kind for s in samples])
        used = positive | negative
        found = "".join(f"{auc(positive[used], values[used]):9.3f}" for values in scores)
        lines.append(f"{kind:16}{int(positive.sum()):5}{found}")
    return lines


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
