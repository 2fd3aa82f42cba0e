"""What a training leaves for people to read: log.txt, metrics.csv, and TensorBoard files when asked for."""

import time
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from cspine.config import Config
from cspine.tables import write_table


class Journal:
    """Writes into a fold's folder; only the main process does."""

    def __init__(self, folder: Path, config: Config, enabled: bool) -> None:
        self.folder = folder
        self.enabled = enabled
        self.name = config.name
        self.board: Any = None
        if enabled and config.train.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder / "tensorboard"))

    def line(self, text: str) -> None:
        """Print a line above the progress bar and append it to log.txt with the time."""
        if self.enabled:
            tqdm.write(f"{self.name}: {text}")
            with (self.folder / "log.txt").open("a") as log:
                log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def epoch(self, history: list[dict[str, float]]) -> None:
        """Write metrics.csv whole, a row an epoch, and tell of the last one."""
        last = history[-1]
        self.line(
            f"epoch {last['epoch']}: loss {last['loss']:.4f}, {last['images_per_second']:.0f} images/s, "
            f"{last['seconds']:.0f} s"
        )
        if self.enabled:
            write_table(pd.DataFrame(history), self.folder / "metrics.csv")
        if self.board is not None:
            for key, value in last.items():
                self.board.add_scalar(key, value, last["epoch"])

    def close(self) -> None:
        if self.board is not None:
            self.board.close()
