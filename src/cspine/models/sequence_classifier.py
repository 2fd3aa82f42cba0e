"""A level's images in, the level's logit out: a 2-D encoder for each image, a recurrent network over them, a pooling.

The form of the competition's first place: a bidirectional LSTM, one logit an image, and the level's probability the
mean of the greatest.
"""

import torch
from torch import nn

from cspine.config import Model, Sequence
from cspine.models.backbones import create_backbone, feature_count
from cspine.models.mirror import mean_with_mirror, refuse_mirror

# Keeps the logit of a mean probability finite in float32.
SUREST = 1e-6


class SequenceClassifier(nn.Module):
    """Maps uint8 levels (n, images, channels, y, x) to logits (n, 1 + images): the level's, then its images'."""

    def __init__(self, backbone: nn.Module, features: int, dropout: float, settings: Sequence) -> None:
        super().__init__()
        self.backbone, self.settings = backbone, settings
        self.dropout = nn.Dropout(dropout)
        self.recurrent = recurrent_network(settings, features)
        width = features if self.recurrent is None else 2 * settings.hidden
        self.head = nn.Linear(width, 1)
        self.attention = nn.Linear(width, 1) if settings.pooling == "attention" else None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return mean_with_mirror(self._logits, images, self.settings.flip_at_test and not self.training)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Features of each image that know of the others of its level, (n, images, width)."""
        flat = self.backbone(images.flatten(0, 1).float().mul(2 / 255).sub(1))
        features = self.dropout(flat.view(*images.shape[:2], -1))
        return features if self.recurrent is None else self.dropout(self.recurrent(features)[0])

    def judge(self, features: torch.Tensor) -> torch.Tensor:
        """The logits (n, 1 + images) of the levels with these features."""
        single = self.head(features).squeeze(-1).float()
        return torch.cat([self._pooled(single, features), single], dim=1)

    def _logits(self, images: torch.Tensor) -> torch.Tensor:
        return self.judge(self.features(images))

    def _pooled(self, logits: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """The level's logit (n, 1) from its images' (n, images)."""
        if self.attention is not None:
            weights = self.attention(features).squeeze(-1).float().softmax(dim=1)
            return (weights * logits).sum(dim=1, keepdim=True)
        count = 1 if self.settings.pooling == "max" else min(self.settings.clearest, logits.shape[1])
        mean = logits.sigmoid().topk(count, dim=1).values.mean(dim=1, keepdim=True)
        return torch.logit(mean, eps=SUREST)


def recurrent_network(settings: Sequence, features: int) -> nn.Module | None:
    """Over sequences (n, images, features) in both directions to (n, images, 2 * hidden); None where there is none."""
    if settings.recurrent == "none":
        return None
    kind = {"lstm": nn.LSTM, "gru": nn.GRU}[settings.recurrent]
    return kind(features, settings.hidden, batch_first=True, bidirectional=True)


def build(settings: Model, channels: int, outputs: int) -> SequenceClassifier:
    """The model for images of `channels` and, besides, the level's mask; it has one output a level."""
    if outputs != 1:
        raise ValueError(f"sequence_classifier judges one thing a level, not {outputs}")
    refuse_mirror(settings, " and model.sequence.flip_at_test=true")
    backbone = create_backbone(settings, channels + 1)
    return SequenceClassifier(backbone, feature_count(backbone), settings.dropout, settings.sequence)
