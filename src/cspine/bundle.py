"""What inference needs, as one description: the members' configs, weights and facts, and how they are blended.

`from_runs` describes the trained runs where they lie, `write` copies them into one folder with a manifest.json, and
`read` takes that folder up again, so that src/predict.py and the kernel run the same code on the same description.
"""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cspine.config import Config, build
from cspine.errors import UserError
from cspine.paths import need, read_json, sha256, write_json

MANIFEST = "manifest.json"
FORMAT = 2
# What the weights were made with, for whoever finds that they no longer load.
VERSIONS = ("numpy", "safetensors", "timm", "torch", "torchvision")


@dataclass(frozen=True)
class FoldModel:
    """The weights of one fold of a run, or of `full`. `file` is relative to the bundle's folder."""

    fold: str
    file: str
    sha256: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Member:
    """A run: its config (paths left out) and its models, whose outputs are averaged: the full one, or one a fold."""

    config: dict[str, Any]
    models: tuple[FoldModel, ...]

    def typed_config(self) -> Config:
        return build(Config, self.config, f"the config of {self.config.get('name')} in the bundle")


@dataclass(frozen=True)
class Bundle:
    """`members` in the order of the blend, `blend` as ensemble.py wrote it.

    `stage1` are the vertebra runs they read, each after those that it reads itself; `wheels` are decoders to install
    where they are missing, file name -> SHA-256.
    """

    folder: Path
    stage1: tuple[Member, ...]
    members: tuple[Member, ...]
    blend: dict[str, Any]
    wheels: dict[str, str] = field(default_factory=dict)

    def weights(self, model: FoldModel) -> Path:
        """The file of a model's weights, checked by its SHA-256. Raises UserError if it is missing or altered."""
        file = need(self.folder / model.file, "python kernels/build.py")
        if sha256(file) != model.sha256:
            raise UserError(f"{file}: its SHA-256 is not the one in the manifest; build the bundle again")
        return file


def from_runs(oof: Path) -> Bundle:
    """The bundle of the blend in `oof/ensemble` and the runs beside it."""
    blend = read_json(need(oof / "ensemble" / "blend.json", "python src/ensemble.py"))
    members = tuple(describe_run(oof, name) for name in blend["members"])
    return Bundle(oof, _read_by(oof, members), members, blend)


def _read_by(oof: Path, members: Sequence[Member]) -> tuple[Member, ...]:
    """The runs that these read, and those that they read in turn, each before whatever reads it."""
    found: dict[str, Member] = {}
    for name in sorted({name for member in members for name in member.typed_config().reads}):
        run = describe_run(oof, name)
        found |= {str(other.config["name"]): other for other in _read_by(oof, [run])} | {name: run}
    return tuple(found.values())


def read(folder: Path) -> Bundle:
    """The bundle that `write` left in a folder."""
    values = read_json(need(folder / MANIFEST, "python kernels/build.py"))
    if values.get("format") != FORMAT:
        raise UserError(f"{folder / MANIFEST}: format {values.get('format')}, this code reads {FORMAT}; build it again")
    stage1, members = (_members(values[stage]) for stage in ("stage1", "members"))
    return Bundle(folder, stage1, members, values["blend"], values["wheels"])


def write(bundle: Bundle, folder: Path, wheels: Sequence[Path] = ()) -> None:
    """Copy the weights into `folder` and describe them in manifest.json, with the wheels that shall go along.

    Equal inputs give equal bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("*.safetensors"), *folder.glob("*.whl")):
        old.unlink()
    for wheel in wheels:
        shutil.copyfile(wheel, folder / wheel.name)
    for member in (*bundle.stage1, *bundle.members):
        for model in member.models:
            shutil.copyfile(bundle.weights(model), folder / _flat(model))
    flat = {
        "format": FORMAT,
        "stage1": [_flattened(member) for member in bundle.stage1],
        "members": [_flattened(member) for member in bundle.members],
        "blend": bundle.blend,
        "wheels": {wheel.name: sha256(wheel) for wheel in sorted(wheels)},
        "versions": {name: version(name) for name in VERSIONS},
    }
    write_json(folder / MANIFEST, flat)


def describe_run(oof: Path, name: str) -> Member:
    """A run as a member: for studies no fold knows, its model of all data where that is trained, else all its folds.

    The slice table of a vertebra run (training.join_folds) follows the same rule, so that a head meets at inference
    what it was trained on. Raises UserError where nothing is trained.
    """
    full = oof / name / "full" / "done.json"
    folders = [full] if full.exists() else sorted((oof / name).glob("fold*/done.json"))
    if not folders:
        raise UserError(
            f"{oof / name}: no trained fold; train it with python src/train.py --config ... --fold all, or --fold full"
        )
    return _describe(oof, folders)


def describe_fold(oof: Path, name: str, fold: int) -> Member:
    """The model of one fold of a run, for the studies that it has not seen."""
    done = oof / name / f"fold{fold}" / "done.json"
    return _describe(oof, [need(done, f"python src/train.py --config <the config named {name}> --fold {fold}")])


def _describe(oof: Path, accounts: Sequence[Path]) -> Member:
    config = read_json(accounts[0].with_name("config.json"))
    config.pop("paths")
    return Member(config, tuple(_describe_fold(oof, done) for done in accounts))


def _describe_fold(oof: Path, done: Path) -> FoldModel:
    account = read_json(done)
    weights = done.with_name("weights.safetensors").relative_to(oof)
    return FoldModel(done.parent.name, str(weights), account["weights_sha256"], account["facts"])


def _members(values: list[dict[str, Any]]) -> tuple[Member, ...]:
    return tuple(Member(value["config"], tuple(FoldModel(**model) for model in value["models"])) for value in values)


def _flattened(member: Member) -> dict[str, Any]:
    models = [{**asdict(model), "file": _flat(model)} for model in member.models]
    return {"config": member.config, "models": models}


def _flat(model: FoldModel) -> str:
    # Kaggle's dataset upload drops sub-folders.
    return model.file.replace("/", "-")
