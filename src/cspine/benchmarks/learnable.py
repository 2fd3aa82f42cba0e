"""Can the phantom's fractures be learnt, and are they lost where the sampling is too coarse?

Every patient gives one crop of CROP_MM about a place drawn as fractures are. In half of the patients the fracture is
painted there, in the others not; everything else is drawn alike. The same small network learns from both samplings.
"""

import math
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import torch
from torch import nn

from cspine.config import Model
from cspine.engine.determinism import set_determinism
from cspine.metrics import auc
from cspine.models.registry import create_model
from cspine.phantom.anatomy import draw_patient, render, vertebrae
from cspine.phantom.canvas import Grid
from cspine.phantom.fractures import cracks_by_level, draw_fracture, kinds_of
from cspine.phantom.labels import LEVEL_WEIGHTS
from cspine.phantom.scanner import draw_scanner, scan
from cspine.windows import window_hu

SAMPLINGS_MM = (0.5, 2.0)
CROP_MM, SIZE_PX, JITTER_MM = 32.0, 64, 2.0
OFFSETS_MM = (-2.0, -1.0, 0.0, 1.0, 2.0)  # of the slices that a view has as channels; at least one slice apart
TRAIN_SHARE, VALIDATION_SHARE = 0.6, 0.1
BACKBONE = "mobilenetv3_small_050"
BATCH, RATE = 32, 2e-3
RESAMPLES = 1000


@dataclass(frozen=True)
class Sample:
    """One patient's crop: views (axial, coronal, sagittal; slices; y, x) in uint8 at each sampling."""

    fractured: bool
    kind: str
    gap_mm: float
    views: tuple[np.ndarray, ...]


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


def make_samples(patients: int, seed: int, processes: int) -> list[Sample]:
    """The crops of patients 0 to n - 1; each depends on the seed and its own number alone."""
    make = partial(make_sample, seed)
    first = [make(0)]  # compiles the kernels before the processes share them
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        return first + list(pool.map(make, range(1, patients), chunksize=8))


def make_sample(seed: int, index: int) -> Sample:
    """One patient with, or without, a fracture, scanned at every sampling."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng([seed, index])
    spine, bone, seeds = draw_patient(rng)
    level = int(rng.choice(7, p=LEVEL_WEIGHTS / LEVEL_WEIGHTS.sum()))
    weights = kinds_of(spine.sizes[level].name)
    kind = str(rng.choice(list(weights), p=np.array(list(weights.values())) / sum(weights.values())))
    fracture = draw_fracture(kind, level, 1, spine, vertebrae(spine, seeds), rng)
    mirror = rng.choice([-1.0, 1.0]) if fracture.cracks[0][21] else 1.0
    place = spine.frames[level].to_world(fracture.place * (mirror, 1.0, 1.0))
    place += rng.uniform(-JITTER_MM, JITTER_MM, 3)
    fractured = index % 2 == 0
    cracks = cracks_by_level([fracture]) if fractured else {}
    views = []
    for sampling in SAMPLINGS_MM:
        scan_rng = np.random.default_rng([seed, index, round(1000 * sampling)])
        grid = _grid_about(place, sampling)
        canvas = render(grid, spine, bone, seeds, cracks)
        views.append(_views(scan(canvas.hu, grid, draw_scanner(sampling, scan_rng), scan_rng), sampling))
    return Sample(fractured, kind, fracture.gap_mm, tuple(views))


def stack(samples: list[Sample], which: int) -> torch.Tensor:
    """The views of every sample at one sampling, (n, 3, slices, y, x) uint8."""
    return torch.from_numpy(np.stack([sample.views[which] for sample in samples]))


def train(
    learnt: list[Sample], validation: list[Sample], which: int, epochs: int, seed: int
) -> tuple[nn.Module, float]:
    """A network trained on one sampling, and its AUC on the validation patients after the last epoch."""
    set_determinism(seed)
    network = create_model(Model(backbone=BACKBONE, dropout=0.2), len(OFFSETS_MM), 1)
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


def _grid_about(place: np.ndarray, sampling_mm: float) -> Grid:
    count = round(CROP_MM / sampling_mm)
    x, y, z = place + np.array([-1.0, -1.0, 1.0]) * (CROP_MM - sampling_mm) / 2
    return Grid((count, count, count), sampling_mm, sampling_mm, (float(x), float(y), float(z)))


def _views(hu: np.ndarray, sampling_mm: float) -> np.ndarray:
    """Slices through the middle in the three directions, enlarged to SIZE_PX, (3, slices, y, x) uint8."""
    low, high = window_hu("bone")
    grey = (np.clip((hu.astype(np.float32) - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    step = max(sampling_mm / 1.0, 1.0)
    places = [len(hu) // 2 + round(offset * step / sampling_mm) for offset in OFFSETS_MM]
    views = [np.moveaxis(grey, axis, 0)[places] for axis in range(3)]
    size = (SIZE_PX, SIZE_PX)
    return np.stack([[cv2.resize(image, size, interpolation=cv2.INTER_CUBIC) for image in view] for view in views])


def _logits(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """One logit a sample from (n, 3, slices, y, x): the views through the same network, their logits averaged."""
    return network(images.flatten(0, 1)).view(len(images), -1).mean(1)


def _augmented(images: torch.Tensor) -> torch.Tensor:
    """The batch mirrored and shifted at random, by up to 4 pixels."""
    if torch.rand(1) < 0.5:
        images = images.flip(-1)
    if torch.rand(1) < 0.5:
        images = images.flip(-2)
    down, right = torch.randint(-4, 5, (2,)).tolist()
    return images.roll((down, right), (-2, -1))
