"""Everything a training must remember to go on after a kill as if nothing had happened."""

import zipfile
from pathlib import Path
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim.swa_utils import AveragedModel

from cspine.config import Train
from cspine.engine.determinism import random_state, restore_random_state
from cspine.engine.rates import parameter_groups, rate_schedule
from cspine.errors import UserError
from cspine.paths import atomic


class TrainingState:
    """Model, averaged models, Adam, schedule of the rates, loss scaler, and the place in the data."""

    def __init__(self, model: nn.Module, settings: Train, total_steps: int, device: torch.device) -> None:
        _check_averages(settings)
        self.model = model
        self.device = device
        self.settings = settings
        self.ema = ModelEmaV3(model, decay=settings.ema_decay) if settings.ema_decay else None
        self.mean = AveragedModel(model) if settings.average_last > 1 else None
        self.optimizer = torch.optim.AdamW(parameter_groups(model, settings), weight_decay=settings.weight_decay)
        self.schedule = rate_schedule(self.optimizer, settings, total_steps)
        self.scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "float16")
        self.epoch = 0
        self.batch = 0  # of the current epoch, already seen
        self.loss_sum = 0.0  # over those batches
        self.history: list[dict[str, float]] = []

    @property
    def best_model(self) -> nn.Module:
        """The averaged weights where they are kept, else the trained ones."""
        averaged = self.ema or self.mean
        return self.model if averaged is None else averaged.module

    def end_epoch(self, **row: float) -> None:
        """Note an epoch's figures and move to the start of the next."""
        self.epoch, self.batch, self.loss_sum = self.epoch + 1, 0, 0.0
        self.history.append({"epoch": self.epoch, "rate": float(max(self.schedule.get_last_lr())), **row})
        if self.mean is not None and self.epoch > self.settings.epochs - self.settings.average_last:
            self.mean.update_parameters(self.model)

    def _parts(self) -> dict[str, Any]:
        parts = {"model": self.model, "optimizer": self.optimizer, "schedule": self.schedule, "scaler": self.scaler}
        averages = {"ema": self.ema and self.ema.module, "mean": self.mean}
        return parts | {name: part for name, part in averages.items() if part is not None}

    def save(self, file: Path, config_hash: str) -> None:
        """Write a checkpoint atomically: a kill while writing leaves the one before."""
        content = {
            "config_hash": config_hash,
            "epoch": self.epoch,
            "batch": self.batch,
            "loss_sum": self.loss_sum,
            "history": self.history,
            "random": random_state(self.device),
            "parts": {name: part.state_dict() for name, part in self._parts().items()},
        }
        with atomic(file) as temporary:
            torch.save(content, temporary)

    def load(self, file: Path, config_hash: str) -> None:
        """Take up a checkpoint; raises UserError where it is damaged or was made with another config."""
        # A torn file lacks the directory at the end of the zip that torch writes.
        if not zipfile.is_zipfile(file):
            raise UserError(f"{file}: not a readable checkpoint; begin again with --restart")
        content = torch.load(file, map_location=self.device, weights_only=True)
        if content["config_hash"] != config_hash:
            raise UserError(f"{file}: made with another config; begin again with --restart, or give another name=")
        for name, part in self._parts().items():
            part.load_state_dict(content["parts"][name])
        self.epoch, self.batch = content["epoch"], content["batch"]
        self.loss_sum, self.history = content["loss_sum"], content["history"]
        self._random = content["random"]

    def restore_random(self) -> None:
        """Put the generators back to where the loaded checkpoint left them."""
        restore_random_state(self._random, self.device)


def _check_averages(settings: Train) -> None:
    if settings.average_last > settings.epochs:
        raise UserError(
            f"train.average_last={settings.average_last}: there are only {settings.epochs} epochs; lower it, or raise "
            "train.epochs"
        )
    if settings.average_last > 1 and settings.ema_decay:
        raise UserError(
            "train.average_last and train.ema_decay both average the weights; set ema_decay=0 or the other to 1"
        )
