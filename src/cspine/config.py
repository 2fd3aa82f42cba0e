"""Frozen dataclasses are the schema, YAML files with a single `base:` fill them, `key=value` words override them."""

import dataclasses
import hashlib
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from cspine.errors import UserError, nearest
from cspine.schema import build, setting
from cspine.windows import check_windows

T = TypeVar("T")

RUN = "run:"  # before the name of a run in `model.pretrained`


def check_window(sides: tuple[int, ...]) -> None:
    """Refuse a window of a 3-D model whose sides cannot be halved four times, with more than a voxel left."""
    if len(sides) != 3 or any(side < 16 or side % 16 for side in sides) or max(sides) < 32:
        raise UserError(f"must be three multiples of 16 (z, y, x), not all of them 16; it is {list(sides)}")


@dataclass(frozen=True, kw_only=True)
class Paths:
    """Where the stages read and write, relative to the working directory."""

    input: str = "input"
    cache: str = "input/cache"
    oof: str = "oof"
    submissions: str = "submissions"


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """What shapes the cached pixels; its hash is the key of the cache."""

    # One channel each: a name from src/cspine/windows.py, or a range in HU as "low..high".
    windows: tuple[str, ...] = setting(("wide",), check=check_windows)
    # What lies outside the body becomes the lowest value; kmeans finds the threshold on the study's own histogram.
    # learned: what is further than `mask_margin_mm` from the levels that `mask_run`, of task vertebra/volume, finds.
    mask: str = setting("none", choices=("none", "threshold", "kmeans", "learned"))
    mask_run: str | None = None
    mask_margin_mm: float = setting(20.0, low=0)
    mask_threshold_hu: float = setting(-300.0, low=-1000, high=1000)
    # Every connected region of one class of grey becomes its mean; fine detail such as a fracture gap may be lost.
    denoise: str = setting("none", choices=("none", "region_mean"))
    kmeans_classes: int = setting(4, low=2, high=16)
    # Side of the square cut out around the middle of the body; null keeps the whole slice.
    field_mm: float | None = setting(180.0, low=20)
    size_px: int = setting(256, low=16)


@dataclass(frozen=True, kw_only=True)
class Folds:
    count: int = setting(5, low=2)
    seed: int = 2022


@dataclass(frozen=True, kw_only=True)
class Data:
    # null: the RSNA data under paths.input if it is there, else the phantom.
    root: str | None = None
    image_size_px: int = setting(224, low=16)
    # The model sees this share of the cached square's side, around its middle; the spine lies there.
    centre_share: float = setting(1.0, low=0.1, high=1)
    # Slices on either side that become channels of the image, this far apart.
    neighbours: int = setting(1, low=0)
    neighbour_step_mm: float = setting(2.0, low=0)
    # Slices drawn from each training study, anew every epoch; null takes all.
    slices_per_study: int | None = setting(None, low=1)
    workers: int = setting(2, low=0)


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Random transforms of a sample, one draw for all its channels.

    A value is a probability or the largest strength that is drawn; 0 switches a transform off.
    """

    share: float = setting(1.0, low=0, high=1)  # probability that a sample is transformed at all
    horizontal_flip: float = setting(0.0, low=0, high=1)  # probability
    vertical_flip: float = setting(0.0, low=0, high=1)  # probability
    rotate_deg: float = setting(15.0, low=0, high=180)
    shift_x: float = setting(0.08, low=0, high=1)  # share of the side
    shift_y: float = setting(0.08, low=0, high=1)
    scale: float = setting(0.1, low=0, high=0.9)
    distortion: float = setting(0.0, low=0, high=0.9)  # share by which a cell of a 5 x 5 grid is stretched
    brightness: float = setting(0.1, low=0, high=1)
    contrast: float = setting(0.1, low=0, high=1)
    blur_px: float = setting(0.0, low=0, high=10)  # standard deviation of a Gaussian
    noise: float = setting(0.0, low=0, high=1)  # standard deviation as a share of the grey range
    cut_out: float = setting(0.0, low=0, high=1)  # side of one black rectangle as a share of the image's
    mixup: float = setting(
        0.0, low=0, high=10
    )  # alpha of the Beta(alpha, alpha) that the other sample's weight follows


@dataclass(frozen=True, kw_only=True)
class Volume:
    """What a 3-D model sees: windows of a grid of cubic voxels over the whole study (src/cspine/data/grid.py)."""

    voxel_mm: float = setting(3.0, low=0.3, high=20)
    window_px: tuple[int, ...] = setting((64, 64, 64), check=check_window)  # z, y, x
    # Share of a window that the next one covers again where a study is longer than one.
    overlap: float = setting(0.5, low=0, high=0.9)
    windows_per_study: int = setting(4, low=1)  # drawn from each training study, anew every epoch
    # How far, from where vertebra/volume finds it, each level of a level map is grown along bone; 0 leaves it as found.
    grow_mm: float = setting(0.0, low=0, high=100)


@dataclass(frozen=True, kw_only=True)
class VolumeAugment:
    """Random transforms of a window in training (src/cspine/data/augment3d.py); 0 switches one off.

    Strong, so that what was learned on one kind of scan holds on others: another size of patient, voxel and field.
    """

    zoom: float = setting(0.4, low=0, high=3)  # 0.4 draws from 1/1.4 to 1.4
    rotate_deg: float = setting(15.0, low=0, high=180)  # about each of the three axes
    flip: float = setting(0.5, low=0, high=1)  # probability of exchanging left and right
    # Along z the window is drawn anyway; the middle of a body is nearer to the spine in one scan than in another.
    shift_y_mm: float = setting(40.0, low=0)
    shift_x_mm: float = setting(15.0, low=0)
    shift_z_mm: float = setting(10.0, low=0)  # of a window that is to show a place, as fracture/volume's
    gain: float = setting(0.2, low=0, high=0.9)
    offset: float = setting(0.1, low=0, high=1)  # share of the grey range
    gamma: float = setting(0.3, low=0, high=3)  # 0.3 draws exponents from 1/1.3 to 1.3
    # 1 draws factors from 1/2 to 2 by which bone stands out of soft tissue.
    bone: float = setting(0.0, low=0, high=3)
    blur_mm: float = setting(2.0, low=0)  # greatest standard deviation, drawn for the planes and across them
    noise: float = setting(0.05, low=0, high=1)  # standard deviation as a share of the grey range
    cut_outs: int = setting(3, low=0)  # boxes blocked out with one grey value each
    cut_out_mm: float = setting(50.0, low=0)  # longest edge of one
    cut_ends: float = setting(
        0.3, low=0, high=1
    )  # probability, for each end, that the scan begins later or ends earlier
    cut_field: float = setting(0.3, low=0, high=1)  # probability that the field of view is smaller, with nothing around


@dataclass(frozen=True, kw_only=True)
class Crop:
    """What a head sees that looks at one level at a time (src/cspine/data/level_crops.py).

    Images around the level's middle, `data.image_size_px` wide, with `data.neighbours` on either side as channels.
    """

    slices: int = setting(15, low=1)  # evenly spaced over the level and the margin
    margin_mm: float = setting(2.0, low=0)  # above and below the level
    side_mm: float = setting(80.0, low=10)  # of the square; the transverse processes of C1 reach 80 mm
    threshold: float = setting(0.5, low=0.05, high=0.95)  # where stage 1 says more, there is the level
    # A level of which less than this share of its usual volume is found is cut off: not trained on, and its prediction
    # is the prior. 0.3 was the rule of the fourth place of the competition.
    least_share: float = setting(0.3, low=0, high=1)
    # Weight, beside the level's loss, of that of its images where boxes tell which show a fracture; 0 switches it off.
    boxes: float = setting(0.0, low=0)
    # How far from the fracture people draw the edges of its box, for `model.cells`; RSNA's are loose.
    box_margin_mm: float = setting(8.0, low=0)
    # Shares of the samples trained on whose level's mask says nothing, so that the encoder learns to do without, as it
    # has to in heads on whole slices that start from it; and whose mask is as poor as stage 1's may be.
    hide_mask: float = setting(0.0, low=0, high=1)
    wear_mask: float = setting(0.0, low=0, high=1)
    # Levels without a fracture that an epoch draws for each with one, weighted to stand for all; null takes all.
    negatives: float | None = setting(None, low=0.1)


@dataclass(frozen=True, kw_only=True)
class Localise:
    """How detectors learn and what they report (src/cspine/tasks/detector.py)."""

    # Slices that certainly show no fracture, for each with a box, drawn anew every epoch.
    negatives: float = setting(1.0, low=0)
    least_score: float = setting(0.05, low=0, high=1)  # of a box that is written down
    # All slices with a vertebra, or those of the levels that oof/ensemble/ takes for fractured.
    search: str = setting("all", choices=("all", "fractured"))


@dataclass(frozen=True, kw_only=True)
class Sequence:
    """How sequence_classifier and study_classifier get from the images of a level to its logit.

    recurrent_classifier takes `recurrent` and `hidden`; it pools by attention.
    """

    recurrent: str = setting("lstm", choices=("lstm", "gru", "none"))  # over the images, in both directions
    hidden: int = setting(64, low=1)  # its width in either direction
    # Of the images' probabilities: the mean of the greatest `clearest`, the greatest, or a mean with learned weights.
    pooling: str = setting("clearest", choices=("clearest", "max", "attention"))
    clearest: int = setting(5, low=1)
    # Of study_classifier: how the patient's features are made of the levels', by learned weights or by the greatest.
    overall: str = setting("attention", choices=("attention", "max"))
    flip_at_test: bool = False  # the mean of what it says of a level and of its mirror image


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Where fracture/recurrent looks at a study: slices evenly spaced over those on which stage 1 sees a level."""

    step_mm: float = setting(1.5, low=0.1, high=20)
    slices: int = setting(160, low=1)  # at most; a longer neck is looked at in wider steps


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """How neighbour_classifier learns from the neighbours in a batch, and judges by those among all it was trained on.

    Distances are squared, of embeddings of length 1, and so lie between 0 and 4.
    """

    width: int = setting(64, low=2)  # of the embedding
    same: int = setting(3, low=1)  # so many nearest of its class shall be nearer to a sample, by `margin`,
    other: int = setting(3, low=1)  # than so many nearest of the other class
    margin: float = setting(0.5, low=0, high=4)
    voters: int = setting(15, low=1)  # neighbours that judge a new sample
    fade: float = setting(0.2, low=0.001)  # the distance by which a voter's weight falls to 1 / e


@dataclass(frozen=True, kw_only=True)
class Model:
    name: str = "slice_classifier"  # a file in src/cspine/models
    backbone: str = "mobilenetv3_small_050"  # any timm model, or one of torchvision's that timm lacks
    # null, 'imagenet', a local .pth, .safetensors or (Caffe's convention) .npz file, or a run: 'stage1', or by its name
    # as 'run:fracture-soft'. Of a run the encoder of the same fold, which has not seen what this fold holds out either.
    pretrained: str | None = None
    # All weights to start from, the head's as well: a file of src/pretrain.py, or weights.safetensors of a fold.
    start: str | None = None
    dropout: float = setting(0.1, low=0, high=1)
    # Of a timm encoder: the probability that its last block is passed over in a training step, of earlier ones less
    # (stochastic depth, Huang et al. 2016).
    drop_path: float = setting(0.0, low=0, high=0.9)
    # Ask every cell of 8 by 8 pixels of an image, too, whether the fracture is there. Sequence and study classifiers
    # judge images by their cells too, and `crop.boxes` weighs what boxes tell of them. For encoders of images, of timm,
    # that give a map at stride 8.
    cells: bool = False
    # Of slice and volume classifiers: the mean of what they say of an image and of its mirror image. The sequence
    # ones have model.sequence.flip_at_test.
    flip_at_test: bool = False
    # Of the 3-D classifiers: `plain`, from scratch and `width` wide, or `backbone` inflated, a residual one if that is.
    encoder: str = setting("plain", choices=("plain", "inflated"))
    width: int = setting(16, low=4)  # channels of the finest stage of a 3-D network, doubled at each coarser one
    # How 3-D kernels are made of 2-D ones: spread evenly over z, or in the middle plane alone.
    inflate: str = setting("mean", choices=("mean", "centre"))
    inflate_depth: int = setting(3, choices=(1, 3, 5, 7))  # planes that an inflated kernel spans at most
    # Keep only what enters the blocks of a timm encoder and compute the rest again on the way back: less memory, more
    # time. Running statistics of batch norms then move twice a step.
    checkpointing: bool = False
    sequence: Sequence = dataclasses.field(default_factory=Sequence)
    neighbours: Neighbours = dataclasses.field(default_factory=Neighbours)


@dataclass(frozen=True, kw_only=True)
class Ordering:
    """What a vertebra run makes of the known order of the levels (src/cspine/order.py)."""

    # Distance over which slices count as one piece of evidence; 0 leaves the probabilities as the model gives them.
    evidence_mm: float = setting(12.0, low=0, high=50)


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """How a level's probability is made of its slices' (src/cspine/aggregate.py)."""

    # null: the mean over slices, weighted by the level's presence; else the mean of the highest, of so many mm of
    # slices; 0: the highest alone.
    clearest_mm: float | None = setting(None, low=0)
    # Of a model that also judges the patient: the weight of what it says beside 1 - prod_j (1 - p_j) of the levels.
    overall_head: float = setting(0.5, low=0, high=1)


@dataclass(frozen=True, kw_only=True)
class Train:
    epochs: int = setting(4, low=1)
    batch_size: int = setting(32, low=1)  # samples that one optimiser step sees per process, before accumulation
    accumulate: int = setting(1, low=1)
    max_rate: float = setting(1e-3, low=0)
    # one_cycle: up and down again (Smith & Topin 2018); cosine: up within `warmup`, a share of all steps, then down.
    schedule: str = setting("one_cycle", choices=("one_cycle", "cosine"))
    warmup: float = setting(0.1, low=0, high=0.9)
    # Each layer of the encoder learns at so much of the next one's rate, the last and the head at max_rate; 1: all do.
    layer_decay: float = setting(1.0, low=0.1, high=1)
    weight_decay: float = setting(0.0, low=0)
    positive_weight: float = setting(2.0, low=0)  # of a fractured sample in the loss; the metric's own weight is 2
    ema_decay: float = setting(0.0, low=0, high=1)  # 0 switches the averaged weights off
    # The mean of the weights at the ends of the last so many epochs (Izmailov et al. 2018); 1 takes the last alone.
    average_last: int = setting(1, low=1)
    clip_norm: float | None = setting(5.0, low=0)
    precision: str = setting("float32", choices=("float32", "float16", "bfloat16"))
    device: str = setting("auto", choices=("auto", "cpu", "cuda"))
    seed: int = 0
    checkpoint_every: int = setting(200, low=1)  # optimiser steps; every epoch's end is a checkpoint too
    tensorboard: bool = False


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """What preparing the data needs."""

    paths: Paths = dataclasses.field(default_factory=Paths)
    preprocess: Preprocess = dataclasses.field(default_factory=Preprocess)
    folds: Folds = dataclasses.field(default_factory=Folds)
    data: Data = dataclasses.field(default_factory=Data)


@dataclass(frozen=True, kw_only=True)
class Config(DatasetConfig):
    """One training run. `task` names a file in src/cspine/tasks: vertebra/image is vertebra_image.py."""

    name: str
    task: str
    stage1: str | None = None  # the vertebra run whose slice table a fracture head reads
    augment: Augment = dataclasses.field(default_factory=Augment)
    volume: Volume = dataclasses.field(default_factory=Volume)
    volume_augment: VolumeAugment = dataclasses.field(default_factory=VolumeAugment)
    crop: Crop = dataclasses.field(default_factory=Crop)
    localise: Localise = dataclasses.field(default_factory=Localise)
    sweep: Sweep = dataclasses.field(default_factory=Sweep)
    model: Model = dataclasses.field(default_factory=Model)
    order: Ordering = dataclasses.field(default_factory=Ordering)
    aggregate: Aggregate = dataclasses.field(default_factory=Aggregate)
    train: Train = dataclasses.field(default_factory=Train)

    @property
    def reads(self) -> tuple[str, ...]:
        """The runs whose output this one needs, in training and at inference."""
        mask_run = self.preprocess.mask_run if self.preprocess.mask == "learned" else None
        return tuple(dict.fromkeys(run for run in (mask_run, self.stage1) if run is not None))

    @property
    def encoder_run(self) -> str | None:
        """The run from whose encoder this one starts; at inference its own weights hold it."""
        pretrained = self.model.pretrained or ""
        if pretrained == "stage1":
            return self.stage1
        return pretrained.removeprefix(RUN) if pretrained.startswith(RUN) else None

    @property
    def follows(self) -> tuple[str, ...]:
        """The runs to train before this one."""
        return tuple(dict.fromkeys([*self.reads, *([self.encoder_run] if self.encoder_run else [])]))


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Model configs, relative to the pipeline's own folder, trained in this order."""

    models: tuple[str, ...]


# Keys that change where or how fast a run goes, not what comes out of it.
NOT_HASHED = {
    "paths": None,
    "data": ("root", "workers"),
    "train": ("device", "tensorboard", "checkpoint_every"),
}


def load(schema: type[T], file: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> T:
    """Read a YAML file and its bases, apply `key=value` overrides, and check everything against the schema.

    Raises UserError naming the file or override, the key, and the nearest key or the values allowed.
    """
    values = read_yaml(Path(file))
    for word in overrides:
        _apply_override(values, word)
    return build(schema, values, where=str(file))


def overridden(config: T, words: list[str] | tuple[str, ...], where: str) -> T:
    """A config with `key=value` words laid over it; `where` names their place in errors, which are those of `load`."""
    values = to_dict(config)
    for word in words:
        _apply_override(values, word)
    return build(type(config), values, where)


def read_yaml(file: Path) -> dict[str, Any]:
    """The mapping in a YAML file, laid over the file that its `base:` names (relative to it)."""
    if not file.is_file():
        folder = file.parent if file.parent.is_dir() else Path("configs")
        found = sorted(str(path) for path in folder.rglob("*.yaml"))
        raise UserError(f"{file}: no such config; {nearest(str(file), found)}")
    try:
        values = yaml.safe_load(file.read_text()) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{file}: must be a mapping of keys to values")
    base = values.pop("base", None)
    return _merge(read_yaml(file.parent / base), values) if base else values


def to_dict(config: Any) -> dict[str, Any]:
    """The configuration as plain JSON types."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def config_hash(config: Any) -> str:
    """Twelve hex digits over everything that shapes the result of a run."""
    return digest(hashed_part(config))


def hashed_part(config: Any) -> dict[str, Any]:
    """The configuration without the keys that only say where or how fast a run goes."""
    values = to_dict(config)
    for name, keys in NOT_HASHED.items():
        for key in keys or ():
            values.get(name, {}).pop(key, None)
        if keys is None:
            values.pop(name, None)
    return values


def digest(value: Any) -> str:
    """Twelve hex digits of the SHA-256 of a JSON value with sorted keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def as_overrides(section: str, values: dict[str, Any]) -> str:
    """A section's values as `section.key=value` words that can be pasted behind a command."""
    return " ".join(shlex.quote(f"{section}.{key}={_as_yaml(value)}") for key, value in values.items())


def _as_yaml(value: Any) -> str:
    return f"[{','.join(map(_as_yaml, value))}]" if isinstance(value, list) else "null" if value is None else str(value)


def differences(one: dict[str, Any], other: dict[str, Any], prefix: str = "") -> list[str]:
    """The keys in which two nested mappings differ, as `key: one -> other`."""
    found = []
    for key in sorted({*one, *other}):
        a, b = one.get(key), other.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}: {a} -> {b}")
    return found


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _apply_override(values: dict[str, Any], word: str) -> None:
    key, _, text = word.partition("=")
    *sections, last = key.split(".")
    for name in sections:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise UserError(f"{word}: '{name}' is a value, not a section")
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{word}: the value is not valid YAML") from error
