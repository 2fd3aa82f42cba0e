"""A tiny dataset on its way through the pipeline: cached, with configs of its own, and trained where a test asks."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from conftest import TinyDataset, write_mask

from cspine.blend import Blend
from cspine.config import Config, Model, Train, load, to_dict
from cspine.data.prepare import prepare_and_report
from cspine.engine.distributed import World
from cspine.ensembling import choose_members, fit_ensemble, write_ensemble
from cspine.paths import read_json, write_json
from cspine.submission import all_rows
from cspine.tables import write_table
from cspine.training import train_fold

ALONE = World(0, 1, torch.device("cpu"))


class Prepared:
    """A tiny dataset in the cache, four of its six studies with masks, and the configs of a pipeline for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = TinyDataset(folder)
        for uid in self.data.uids[1:5]:
            write_mask(self.data.mask(uid), self.data.mask_labels())
        prepare_and_report(self.data.config, ("train",))
        self.vertebra = self.config("v", "vertebra/image")
        self.fracture = replace(self.config("f", "fracture/slice"), stage1="v")

    def config(self, name: str, task: str) -> Config:
        base = to_dict(self.data.config)
        base["paths"]["oof"] = str(self.folder / "oof")
        base["data"].update(image_size_px=32, workers=0)
        base.update(name=name, task=task, train={"epochs": 2, "batch_size": 8}, model={"backbone": "lcnet_050"})
        file = self.folder / f"{name}.yaml"
        file.write_text(json.dumps(base))  # JSON is YAML
        return load(Config, file)

    @property
    def oof(self) -> Path:
        return self.folder / "oof"

    def train(self) -> None:
        """Train both configs on both folds."""
        for config in (self.vertebra, self.fracture):
            for fold in (0, 1):
                train_fold(config, fold, ALONE)

    def train_mirrored(self) -> None:
        """Train a second fracture run, `g`, which looks at mirror images too.

        Its backbone tells images apart from the start; after so few steps the other says the same of all but rounding.
        """
        model = replace(self.fracture.model, backbone="test_byobnet", flip_at_test=True)
        for fold in (0, 1):
            own = replace(self.fracture.train, seed=1)
            train_fold(replace(self.fracture, name="g", model=model, train=own), fold, ALONE)

    def train_detector(self) -> None:
        """Train a run of detectors, `d`, on boxes about every fracture."""
        rows = [(uid, 13.0, 17.0, 6.0, 6.0, number) for uid in self.data.uids[::2] for number in (3, 4)]
        self.data.boxes = pd.DataFrame(rows, columns=list(self.data.boxes.columns))
        self.data.write_tables()
        detector = replace(
            self.config("d", "localise/ssd"),
            stage1="v",
            data=replace(self.vertebra.data, image_size_px=64),
            model=Model(name="ssd", backbone="test_byobnet"),
            train=Train(epochs=12, batch_size=4, max_rate=3e-3),
        )
        for fold in (0, 1):
            train_fold(detector, fold, ALONE)

    def ensemble(self) -> None:
        """Write oof/ensemble from the fracture runs."""
        write_ensemble(fit_ensemble(choose_members(self.oof, []), self.fracture), self.oof / "ensemble")

    def trust_members(self) -> None:
        """Give both members half the blend: fitted to what has learnt nothing, it would say the prior of everything."""
        file = self.oof / "ensemble" / "blend.json"
        write_json(file, {**read_json(file), **Blend(("f", "g"), (0.5, 0.5), 1.0, (0.0,) * 8).to_json()})

    def add_test_set(self) -> pd.DataFrame:
        """Copy three training studies as test studies and ask for all their rows, and for those of an absent study."""
        for uid in self.data.uids[:3]:
            shutil.copytree(self.data.images(uid), self.test_images / uid)
        rows = all_rows([*self.data.uids[:3], "1.2.absent"]).sample(frac=1, random_state=0)
        write_table(rows, self.data.root / "test.csv")
        return rows

    @property
    def test_images(self) -> Path:
        return self.data.root / "test_images"

    @property
    def overrides(self) -> list[str]:
        """The words that point a command at this dataset."""
        paths = self.fracture.paths
        return [
            f"data.root={self.data.root}",
            f"paths.input={paths.input}",
            f"paths.cache={paths.cache}",
            f"paths.oof={paths.oof}",
            "data.workers=1",
        ]
