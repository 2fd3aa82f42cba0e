"""A study's slices in, the patient's and its levels' logits out: a frozen encoder, a recurrent network, attention.

The second half of the competition's third place. The encoder does not learn, so a training computes what it makes of
each slice once, and gives the model that instead of images; its weights are saved with the others all the same.
"""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from cspine.anatomy import LEVELS
from cspine.config import Model, Sequence
from cspine.models.backbones import feature_count
from cspine.models.cells import create_encoder
from cspine.models.mirror import refuse_mirror
from cspine.models.sequence_classifier import recurrent_network


class FrozenEncoder(nn.Module):
    """Maps uint8 images (n, channels, y, x) to features, float16 (n, width); neither weights nor statistics change."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> "FrozenEncoder":  # noqa: ARG002
        return super().train(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.backbone(images.float().mul(2 / 255).sub(1)).half()


class RecurrentClassifier(nn.Module):
    """Maps studies to logits (n, outputs).

    Their slices are uint8 (n, slices, channels, y, x), or (n, slices, width) what the encoder makes of them; beside
    them go stage 1's probabilities (n, slices, 7) and which slices are there (n, slices): 1, then 0 to the end. For
    each output its own attention over the slices.
    """

    def __init__(self, backbone: nn.Module, features: int, outputs: int, dropout: float, settings: Sequence) -> None:
        super().__init__()
        self.encoder = FrozenEncoder(backbone)
        # Encoders differ in the scale of what they say.
        self.norm = nn.LayerNorm(features)
        self.dropout = nn.Dropout(dropout)
        self.recurrent = recurrent_network(settings, features + len(LEVELS))
        width = features + len(LEVELS) if self.recurrent is None else 2 * settings.hidden
        self.attention = nn.Linear(width, outputs)
        self.head = nn.Linear(width, outputs)

    def forward(self, slices: torch.Tensor, presence: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        if slices.dtype == torch.uint8:
            slices = self.encoder(slices.flatten(0, 1)).view(*slices.shape[:2], -1)
        features = torch.cat([self.dropout(self.norm(slices.float())), presence], dim=-1)
        if self.recurrent is not None:
            features = self.dropout(self._over_slices(features, there))
        scores = self.attention(features).float().masked_fill(there[..., None] == 0, -torch.inf)
        return (scores.softmax(dim=1) * self.head(features).float()).sum(dim=1)

    def _over_slices(self, features: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        """Packed, or the direction from below would begin in what is not there."""
        assert self.recurrent is not None
        lengths = there.sum(dim=1).long().cpu()
        packed = pack_padded_sequence(features, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.recurrent(packed)[0], batch_first=True, total_length=there.shape[1])[0]


def build(settings: Model, channels: int, outputs: int) -> RecurrentClassifier:
    """The model for slices of `channels`."""
    refuse_mirror(settings, "")
    backbone = create_encoder(settings, channels)
    return RecurrentClassifier(backbone, feature_count(backbone), outputs, settings.dropout, settings.sequence)
