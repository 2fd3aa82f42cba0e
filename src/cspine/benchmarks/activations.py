"""How much memory a training step keeps for the way back, counted without computing: every tensor lies on `meta`.

The greatest total at any moment of forward and backward, what is computed again included; tensors that share their
storage count once, weights not at all. Beside it come weights, gradients, the optimiser's two moments and the averaged
weights, 20 bytes a weight, and what the kernels need for themselves, which only a GPU tells.
"""

import weakref
from dataclasses import replace

import torch
from timm.layers import set_reentrant_ckpt, use_reentrant_ckpt
from torch import nn

from cspine.anatomy import LEVELS
from cspine.config import Config
from cspine.data.slices import channels
from cspine.errors import UserError
from cspine.models.backbones import feature_count
from cspine.models.cells import create_encoder
from cspine.models.study_classifier import StudyClassifier

BYTES_A_WEIGHT = 20


class Kept:
    """Bytes that autograd keeps, now and at most."""

    def __init__(self, besides: nn.Module) -> None:
        self.now = self.most = 0
        self._users: dict[int, int] = {}
        self._besides = {_storage(tensor) for tensor in (*besides.parameters(), *besides.buffers())}

    def pack(self, tensor: torch.Tensor) -> "_Holder":
        key, size = _storage(tensor), tensor.untyped_storage().nbytes()
        if key in self._besides:
            return _Holder(tensor)
        if not self._users.get(key):
            self.now += size
            self.most = max(self.most, self.now)
        self._users[key] = self._users.get(key, 0) + 1
        holder = _Holder(tensor)
        weakref.finalize(holder, self._drop, key, size)
        return holder

    def _drop(self, key: int, size: int) -> None:
        self._users[key] -= 1
        if not self._users[key]:
            del self._users[key]
            self.now -= size


class _Holder:
    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata  # a tensor on meta has no address


def activation_bytes(config: Config, checkpointing: bool) -> int:
    """The most that one step on one patient keeps for the way back, in float32."""
    model = _study_model(config, checkpointing)
    shape = (1, len(LEVELS), config.crop.slices, channels(config) + 1, *[config.data.image_size_px] * 2)
    images = torch.empty(shape, dtype=torch.float32, device="meta", requires_grad=True)
    kept, usual = Kept(model), use_reentrant_ckpt()
    # Of the two kinds of checkpoints only this one shows the hooks what it computes again; both keep the same.
    set_reentrant_ckpt(True)
    try:
        with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda holder: holder.tensor):
            _step(model, images.flatten(0, 2))
    finally:
        set_reentrant_ckpt(usual)
    return kept.most


def _step(model: StudyClassifier, flat: torch.Tensor) -> None:
    # The mask of the levels found cannot choose on meta: all are found.
    features, cells = model.encode(flat)
    features = features.view(len(LEVELS), -1, features.shape[-1])
    after = features if model.recurrent is None else model.recurrent(features)[0]
    (model.head(after).sum() + cells.sum()).backward()


def _study_model(config: Config, checkpointing: bool) -> StudyClassifier:
    with torch.device("meta"):
        settings = replace(config.model, checkpointing=checkpointing, pretrained=None, dropout=0.0)
        backbone = create_encoder(settings, channels(config) + 1)
        return StudyClassifier(backbone, feature_count(backbone), settings).train()


def activations_table(config: Config) -> str:
    """GB with and without `model.checkpointing`, in float32 and, half of it, in float16. For fracture/study."""
    if config.task != "fracture/study":
        raise UserError(f"{config.name}: `activations` counts a patient of fracture/study, not {config.task}")
    weights = sum(weight.numel() for weight in _study_model(config, False).parameters())
    size = config.data.image_size_px
    images = f"{len(LEVELS)} x {config.crop.slices} images of {channels(config) + 1} channels"
    title = f"{images}, {size} px, {config.model.backbone}"
    lines = [f"{title:72}{'float32':>9}{'float16':>9}"]
    for checkpointing in (False, True):
        amount = activation_bytes(config, checkpointing) / 1e9
        lines.append(f"{f'GB kept, model.checkpointing={str(checkpointing).lower()}':72}{amount:9.1f}{amount / 2:9.1f}")
    fixed = BYTES_A_WEIGHT * weights / 1e9
    title = f"GB of {weights / 1e6:.1f} million weights and what goes with them"
    return "\n".join([*lines, f"{title:72}{fixed:9.1f}{fixed:9.1f}"])
