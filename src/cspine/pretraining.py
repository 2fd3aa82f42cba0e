"""A head on levels pre-trained on phantoms drawn for it, before it sees any study of a data set."""

from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from cspine.config import Config, to_dict
from cspine.data.level_samples import Level, LevelSamples
from cspine.data.slices import channels
from cspine.engine.distributed import World
from cspine.engine.loop import fit, predict
from cspine.errors import UserError
from cspine.metrics import auc
from cspine.models.registry import create_model
from cspine.models.torchvision_encoders import first_convolution
from cspine.models.weights import PREFIX
from cspine.paths import atomic, write_json
from cspine.phantom.level_files import StoredLevel, draw_levels
from cspine.phantom.single_levels import SIDE_MM, Sampling
from cspine.tasks import fracture_sequence
from cspine.tasks.base import find_task, run_folder

FOLDER, WEIGHTS, ENCODER = "pretrained", "weights.safetensors", "encoder.safetensors"
# Of the levels, the last ones are not learned from: they tell how much was learned.
HELD_OUT_SHARE = 0.15


@dataclass(frozen=True)
class Order:
    """How many levels of which phantoms, and how they are scanned."""

    levels: int
    seed: int
    sampling: Sampling


class PreTask(fracture_sequence.Task):
    """What the training loop asks of a task; the loss is that of the head, with the truth of every image."""

    def __init__(self, config: Config, levels: list[StoredLevel]) -> None:
        self.config, self.alone = config, levels

    def training_samples(self) -> LevelSamples:
        return level_samples(self.alone, self.config, augmented=True)

    def model(self) -> nn.Module:
        return create_model(self.config.model, channels(self.config), self.outputs)


def pretrain(config: Config, order: Order, world: World, processes: int, resume: bool = False) -> Path:
    """Train the config's model on levels drawn for it; the weights are in `oof/<run>/pretrained/`.

    The levels stay under `<paths.input>/levels/`, for a training that goes on and for other models. Raises UserError
    for a task that does not judge one level at a time, and for an interrupted training without `resume`.
    """
    if not issubclass(find_task(config.task), fracture_sequence.Task) or find_task(config.task).outputs != 1:
        raise UserError(f"{config.name}: {config.task} does not judge single levels; take fracture/sequence")
    if order.levels < 20:
        raise UserError("--levels must be at least 20, some of which are held out")
    folder = run_folder(config) / FOLDER
    if (folder / "last.ckpt").exists() and not resume:
        raise UserError(f"{folder} holds an interrupted training; add --resume to go on, or delete it to begin again")
    draw = partial(draw_levels, Path(config.paths.input) / "levels", order.levels, order.seed)
    if world.is_main:
        draw(config.preprocess, order.sampling, processes)
    world.barrier()
    levels = draw(config.preprocess, order.sampling, processes)
    kept = order.levels - round(HELD_OUT_SHARE * order.levels)
    folder.mkdir(parents=True, exist_ok=True)
    model = fit(PreTask(config, levels[:kept]), config, folder, world, resume)
    held_out = level_samples(levels[kept:], config, augmented=False)
    logits = predict(model, held_out, config, world)[:, 0]
    if not world.is_main:
        return folder / WEIGHTS
    found = auc(held_out.fractured.astype(int), logits)
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    for name, part in ((WEIGHTS, state), (ENCODER, _image_encoder(model, state))):
        with atomic(folder / name) as temporary:
            save_file(part, temporary)
    account = {"config": to_dict(config), "order": asdict(order), "held_out": len(held_out), "auc": found}
    write_json(folder / "done.json", account)
    (folder / "last.ckpt").unlink()
    print(f"{folder / WEIGHTS}: AUC {found:.3f} on {len(held_out)} levels held out")
    return folder / WEIGHTS


def _image_encoder(model: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The encoder's weights but those of the level's mask, the last channel, for heads that look at whole slices."""
    encoder = {key: value for key, value in state.items() if key.startswith(PREFIX)}
    stem = f"{PREFIX}{first_convolution(model.get_submodule(PREFIX.rstrip('.')))}.weight"
    return {**encoder, stem: encoder[stem][:, :-1].contiguous()}


def level_samples(levels: list[StoredLevel], config: Config, augmented: bool) -> LevelSamples:
    """The drawn levels as the samples of a head: its own crops, moves and repainting, from their own smaller field."""
    settings = replace(config.preprocess, field_mm=SIDE_MM, size_px=levels[0].volume.shape[-1])
    small = replace(config, preprocess=settings, crop=replace(config.crop, negatives=None, box_margin_mm=0.0))
    samples = [Level(n, level.place, float(level.fractured), level.truth) for n, level in enumerate(levels)]
    return LevelSamples(levels, samples, small, config.augment if augmented else None)
