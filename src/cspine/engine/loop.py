"""The one training loop: mixed precision, accumulation, EMA, checkpoints, resume, several processes."""

import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from tqdm import tqdm

from cspine.config import Config, config_hash
from cspine.engine.averaging import refresh_statistics
from cspine.engine.determinism import set_determinism
from cspine.engine.distributed import World
from cspine.engine.forward import model_inputs
from cspine.engine.journal import Journal
from cspine.engine.loader import EpochSampler, Samples, prediction_loader, training_loader
from cspine.engine.state import TrainingState
from cspine.errors import UserError


class Trainable(Protocol):
    """What the loop asks of a task."""

    def training_samples(self) -> Samples: ...

    def model(self) -> nn.Module: ...

    def loss(self, outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The mean loss over a batch."""
        ...


def fit(task: Trainable, config: Config, folder: Path, world: World, resume: bool = False) -> nn.Module:
    """Train one model and return it (its averaged weights where they are kept).

    `folder` receives last.ckpt, metrics.csv and log.txt; with `resume` the training goes on from last.ckpt.
    """
    set_determinism(config.train.seed)
    trainer = _Trainer(task, config, folder, world)
    trainer.run(resume)
    return trainer.state.best_model


class _Trainer:
    def __init__(self, task: Trainable, config: Config, folder: Path, world: World) -> None:
        self.task, self.config, self.world = task, config, world
        self.samples = task.training_samples()
        self.checkpoint = folder / "last.ckpt"
        self.journal = Journal(folder, config, world.is_main)
        model = task.model().to(world.device)
        self.batches = self._count_batches()
        steps = config.train.epochs * -(-self.batches // config.train.accumulate)
        self.state = TrainingState(model, config.train, steps, world.device)
        self.model = DistributedDataParallel(model) if world.size > 1 else model

    def run(self, resume: bool) -> None:
        resumed = resume and self.checkpoint.exists()
        if resumed:
            self.state.load(self.checkpoint, config_hash(self.config))
        self.journal.line(
            f"{len(self.samples)} slices to draw from, {self.batches} batches an epoch, {self.world.device}, "
            f"{self.world.size} process(es), starting at epoch {self.state.epoch + 1}, batch {self.state.batch + 1}"
        )
        while self.state.epoch < self.config.train.epochs:
            self._epoch(resumed)
            resumed = False
            self._save()
            self.journal.epoch(self.state.history)
        if self.state.mean is not None:
            self._finish_mean(self.state.mean.module)
        self.journal.close()

    def _finish_mean(self, model: nn.Module) -> None:
        # The samples of an epoch that nobody trained on any more: a resumed training comes to the same statistics.
        precision = self.config.train.precision
        self.journal.line(f"statistics of the mean of the last {self.config.train.average_last} epochs' weights")
        with torch.autocast(self.world.device.type, getattr(torch, precision), enabled=precision != "float32"):
            refresh_statistics(model, self._stream(), self.world)

    def _count_batches(self) -> int:
        count = -(-len(self._sampler(epoch=0)) // self.config.train.batch_size)
        if not count:
            raise UserError(f"{self.config.name}: there is nothing to train on in this fold; the data is too small")
        return count

    def _sampler(self, epoch: int) -> EpochSampler:
        return EpochSampler(self.samples, self.config.train.seed, epoch, self.world, self.config.train.batch_size)

    def _stream(self) -> DataLoader:
        sampler = self._sampler(self.state.epoch)
        sampler.start = self.state.batch * self.config.train.batch_size
        return training_loader(self.samples, sampler, self.config, self.world)

    def _epoch(self, resumed: bool) -> None:
        state, settings = self.state, self.config.train
        stream = iter(self._stream())
        if resumed:
            state.restore_random()
        self.model.train()
        began, first = time.perf_counter(), state.batch
        with self._bar() as bar:
            while state.batch < self.batches:
                group = min(settings.accumulate, self.batches - state.batch)
                for _ in range(group):
                    state.loss_sum += self._backward(next(stream), group)
                self._update()
                state.batch += group
                seconds = time.perf_counter() - began
                rate = (state.batch - first) * settings.batch_size * self.world.size / seconds
                bar.update(group)
                bar.set_postfix_str(f"loss {state.loss_sum / state.batch:.4f}, {rate:.0f} images/s")
                if state.batch < self.batches and state.batch // settings.accumulate % settings.checkpoint_every == 0:
                    self._save()
        losses = self.world.gather(state.loss_sum / self.batches)
        state.end_epoch(loss=float(np.mean(losses)), images_per_second=rate, seconds=seconds)

    def _bar(self) -> tqdm:
        title = f"{self.config.name} epoch {self.state.epoch + 1}/{self.config.train.epochs}"
        hide, done = self.world.hide_bar, self.state.batch
        return tqdm(total=self.batches, initial=done, desc=title, unit="batch", disable=hide, leave=False)

    def _backward(self, batch: dict[str, Any], group: int) -> float:
        device, precision = self.world.device, self.config.train.precision
        batch = {key: value.to(device, non_blocking=True) for key, value in batch.items()}
        with torch.autocast(device.type, getattr(torch, precision), enabled=precision != "float32"):
            outputs = self.model(*model_inputs(batch))
        loss = self.task.loss(outputs.float(), batch)
        value = float(loss.detach())
        if not np.isfinite(value):
            raise UserError(
                f"{self.config.name}: the loss became {value} in epoch {self.state.epoch + 1}, batch "
                f"{self.state.batch + 1}; lower train.max_rate or set train.precision=float32. "
                "The last checkpoint is kept"
            )
        self.state.scaler.scale(loss / group).backward()
        return value

    def _update(self) -> None:
        state, clip_norm = self.state, self.config.train.clip_norm
        if clip_norm is not None:
            state.scaler.unscale_(state.optimizer)
            nn.utils.clip_grad_norm_(state.model.parameters(), clip_norm)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.optimizer.zero_grad(set_to_none=True)
        state.schedule.step()
        if state.ema is not None:
            state.ema.update(state.model)

    def _save(self) -> None:
        if self.world.is_main:
            self.state.save(self.checkpoint, config_hash(self.config))


@torch.inference_mode()
def predict(model: nn.Module, samples: Samples, config: Config, world: World) -> np.ndarray:
    """The model's outputs (logits) for every sample: float32 (n, outputs), in the samples' order, in every process."""
    model.eval()
    loader = prediction_loader(samples, config, world)
    precision = config.train.precision
    parts = []
    for batch in tqdm(loader, desc=f"{config.name} predicting", unit="batch", disable=world.hide_bar, leave=False):
        with torch.autocast(world.device.type, getattr(torch, precision), enabled=precision != "float32"):
            inputs = [values.to(world.device, non_blocking=True) for values in model_inputs(batch)]
            parts.append(model(*inputs).float().cpu().numpy())
    gathered = world.gather(np.concatenate(parts) if parts else None)
    shape = next(part.shape[1:] for part in gathered if part is not None)
    outputs = np.empty((len(samples), *shape), np.float32)
    for rank, part in enumerate(gathered):
        if part is not None:
            outputs[rank :: world.size] = part
    return outputs
