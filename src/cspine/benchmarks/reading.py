"""What the cache costs and gives: GB for the whole competition, random training samples beside the model's speed."""

import time
from collections.abc import Callable

import numpy as np
import torch

from cspine.config import Config
from cspine.data.cache import CachedStudy, cached_studies, open_study
from cspine.data.datasets import SliceSamples
from cspine.data.rsna import COUNTS
from cspine.data.slices import channels
from cspine.errors import UserError
from cspine.models.registry import create_model

SLICES, STUDIES = COUNTS["files"], COUNTS["studies"]
SIZES_PX = (128, 192, 256, 384, 512)
WINDOWS = (1, 2, 3)
STUDIES_READ = 40


def size_table() -> str:
    """GB of the cache for all 2,019 studies: one byte a pixel, slice and window."""
    lines = [f"{'size_px':>8}" + "".join(f"{f'{count} window(s)':>14}" for count in WINDOWS)]
    for size in SIZES_PX:
        lines.append(f"{size:>8}" + "".join(f"{SLICES * size * size * count / 1e9:>11.1f} GB" for count in WINDOWS))
    return "\n".join([*lines, f"the cache of {STUDIES:,} studies, {SLICES:,} slices; geometry and masks add under 1 %"])


def reading_table(config: Config, seconds: float) -> str:
    """Random samples a second: the bytes alone, samples as trained on, and what the model takes."""
    uids = cached_studies(config)[:STUDIES_READ]
    if not uids:
        raise UserError("the cache is empty for these settings; fill it with: python src/prepare.py")
    studies = [open_study(config, uid) for uid in uids]
    counts = [len(study.geometry.z_mm) for study in studies]
    places = np.repeat(np.arange(len(studies)), counts), np.concatenate([np.arange(count) for count in counts])
    rng = np.random.default_rng(0)
    order = rng.permutation(sum(counts))
    plain = SliceSamples(studies, *places, config.data)
    augmented = SliceSamples(studies, *places, config.data, config.augment)
    model = _training_rate(config, seconds)
    rows = [
        ("bytes of one slice from its file", _rate(lambda i: _bytes(studies, places, order[i]), len(order), seconds)),
        ("samples, not augmented", _rate(lambda i: plain[order[i], -1], len(order), seconds)),
        ("samples, augmented", _rate(lambda i: augmented[order[i], i], len(order), seconds)),
        (f"training {config.model.backbone} on {torch.get_num_threads()} CPU threads", model),
    ]
    lines = [f"{'one process, files in the page cache':46}{'images/s':>10}{'ratio':>8}"]
    lines += [f"{name:46}{rate:>10.0f}{rate / model:>8.1f}" for name, rate in rows]
    return "\n".join(
        [*lines, f"{len(studies)} studies, {config.data.image_size_px} px; ratio: to the model's training"]
    )


def _bytes(studies: list[CachedStudy], places: tuple[np.ndarray, np.ndarray], sample: int) -> int:
    return int(np.array(studies[places[0][sample]].volume[places[1][sample]]).nbytes)


def _rate(read: Callable[[int], object], count: int, seconds: float) -> float:
    for index in range(min(count, 50)):
        read(index)
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        read(done % count)
        done += 1
    return done / (time.perf_counter() - began)


def _training_rate(config: Config, seconds: float) -> float:
    """Images a second through forward, backward and the optimiser, on images that are in memory already."""
    images = channels(config)
    model = create_model(config.model, images, 7, pretrained=False).train()
    optimiser = torch.optim.Adam(model.parameters())
    side, batch = config.data.image_size_px, config.train.batch_size
    inputs = torch.randint(0, 255, (batch, images, side, side), dtype=torch.uint8)

    def step(_: int) -> None:
        optimiser.zero_grad()
        model(inputs).square().mean().backward()
        optimiser.step()

    return batch * _rate(step, 2, seconds)
