"""A level's images in, the level's logit out: a 2-D encoder for each image, a recurrent network over them, a pooling.

The form of the competition's first place: a bidirectional LSTM, one logit an image, and the level's probability the
mean of the greatest.
"""

from collections.abc import Callable

import torch
from torch import nn

from cspine.config import Model, Sequence
from cspine.models.backbones import feature_count
from cspine.models.cells import CellEncoder, create_encoder
from cspine.models.mirror import refuse_mirror

# Keeps the logit of a mean probability finite in float32.
SUREST = 1e-6
Judge = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


class SequenceClassifier(nn.Module):
    """Maps uint8 levels (n, images, channels, y, x) to logits (n, 1 + images): the level's, then its images'.

    With `model.cells` those of the images' cells follow, image by image, row by row (data/level_cells.py).
    """

    def __init__(self, backbone: nn.Module, features: int, settings: Model) -> None:
        super().__init__()
        self.settings = settings.sequence
        self.backbone = backbone
        self.dropout = nn.Dropout(settings.dropout)
        self.recurrent = recurrent_network(self.settings, features)
        width = features if self.recurrent is None else 2 * self.settings.hidden
        self.head = nn.Linear(width, 1)
        self.attention = nn.Linear(width, 1) if self.settings.pooling == "attention" else None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self._with_mirror(self._logits, images)

    def features(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features of each image that know of the others of its level, (n, images, width), and logits of cells.

        Those are (n, images, cells, cells), or have no cells.
        """
        features, cells = self.encode(images.flatten(0, 1).float().mul(2 / 255).sub(1))
        features = self.dropout(features.view(*images.shape[:2], -1))
        features = features if self.recurrent is None else self.dropout(self.recurrent(features)[0])
        return features, cells.view(*images.shape[:2], *cells.shape[1:])

    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features of single images (n, channels, y, x), -1 to 1, and the logits of their cells, if it has any."""
        if isinstance(self.backbone, CellEncoder):
            return self.backbone.look(images)
        features = self.backbone(images)
        return features, features.new_zeros(len(features), 0, 0)

    def judge(self, features: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        """The logits (n, 1 + images) of the levels with these features and logits of cells (n, images, ...)."""
        single = self.head(features).squeeze(-1).float()
        if cells.numel():
            # What a cell shows, its image shows: what boxes teach about places reaches the level at once.
            single = single + cells.flatten(2).amax(dim=2)
        return torch.cat([self._pooled(single, features), single], dim=1)

    def _logits(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features, cells = self.features(images)
        return self.judge(features, cells), cells

    def _with_mirror(self, judge: Judge, images: torch.Tensor) -> torch.Tensor:
        """The logits and after them the cells'; at test the mean with those of the mirror image, if asked for."""
        logits, cells = judge(images)
        if self.settings.flip_at_test and not self.training:
            mirrored, mirrored_cells = judge(images.flip(-1))
            logits, cells = (logits + mirrored) / 2, (cells + mirrored_cells.flip(-1)) / 2
        return torch.cat([logits, cells.flatten(1)], dim=1)

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
    backbone = create_encoder(settings, channels + 1)
    return SequenceClassifier(backbone, feature_count(backbone), settings)
