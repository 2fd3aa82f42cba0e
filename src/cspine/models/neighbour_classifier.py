"""A level judged by its nearest neighbours among all levels trained on: deep k-nearest-neighbours.

After Zhuang et al., "Deep kNN for Medical Image Classification", MICCAI 2020: the network learns embeddings alone, in
which a sample is nearer to its neighbours of its class than to those of the other.
"""

from typing import Any

import torch
from torch import nn
from torch.nn.functional import normalize, relu

from cspine.config import Model, Neighbours
from cspine.models import level_volume_classifier


class NeighbourClassifier(nn.Module):
    """Maps uint8 levels (n, images, channels, y, x) to embeddings of length 1 (n, width) in training, else to logits.

    The logits (n, 1) are by the bank: the embeddings of what it was trained on and which of them are fractured. It is
    saved with the weights; `remember` fills it.
    """

    bank: torch.Tensor
    bank_fractured: torch.Tensor

    def __init__(self, network: nn.Module, settings: Neighbours) -> None:
        """`network` maps levels to (n, width)."""
        super().__init__()
        self.network, self.settings = network, settings
        self.register_buffer("bank", torch.zeros(0, settings.width))
        self.register_buffer("bank_fractured", torch.zeros(0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        embeddings = normalize(self.network(images).float(), dim=1)
        return embeddings if self.training else torch.logit(self.judge(embeddings))[:, None]

    def remember(self, outputs: torch.Tensor, fractured: torch.Tensor) -> None:
        """Fill the bank with what `network` makes of samples (n, width), and which of them are fractured (n,)."""
        device = self.bank.device
        self.bank, self.bank_fractured = normalize(outputs.to(device), dim=1), fractured.to(device, torch.float32)

    def judge(self, embeddings: torch.Tensor) -> torch.Tensor:
        """The share (n,) of fractured ones among the nearest of the bank, each weighted by exp(-distance / fade).

        The bank's own share, with one of either class added to it, counts as one neighbour more, so that no probability
        is 0 or 1.
        """
        if not len(self.bank):
            raise ValueError("neighbour_classifier has nothing to compare with; `remember` the training samples first")
        voters = min(self.settings.voters, len(self.bank))
        # In half precision near neighbours would be equally near.
        with torch.autocast(embeddings.device.type, enabled=False):
            nearest, which = squared_distances(embeddings, self.bank).topk(voters, largest=False)
        weights = (-nearest / self.settings.fade).softmax(dim=1)
        share = (weights * self.bank_fractured[which]).sum(dim=1)
        prior = (self.bank_fractured.sum() + 1) / (len(self.bank) + 2)
        return (voters * share + prior) / (voters + 1)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        # How long the bank is, only the file knows.
        for name in ("bank", "bank_fractured"):
            if (saved := state_dict.get(prefix + name)) is not None:
                setattr(self, name, torch.empty_like(saved, device=self.bank.device))
        super()._load_from_state_dict(state_dict, prefix, *others)


def squared_distances(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """(n, m) between embeddings of length 1, (n, width) and (m, width): 0 to 4."""
    return (2 - 2 * one @ other.T).clamp(min=0)


def neighbour_loss(embeddings: torch.Tensor, fractured: torch.Tensor, settings: Neighbours) -> torch.Tensor:
    """The mean of max(0, margin + d(sample, one of its class) - d(sample, one of the other)) over a batch.

    For each sample, of embeddings (n, width) of length 1, its `same` nearest against its `other` nearest; 0 where no
    sample has both.
    """
    distances = squared_distances(embeddings, embeddings)
    alike = fractured[:, None] == fractured
    itself = torch.eye(len(fractured), dtype=torch.bool, device=fractured.device)
    near, has_near = _nearest(distances, alike & ~itself, settings.same)
    far, has_far = _nearest(distances, ~alike, settings.other)
    counted = has_near[:, :, None] & has_far[:, None, :]
    lacking = relu(settings.margin + near[:, :, None] - far[:, None, :])
    return (lacking * counted).sum() / counted.sum().clamp(min=1)


def _nearest(distances: torch.Tensor, allowed: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The distances (n, count) to the nearest of those allowed (n, m), and where there are so many."""
    found = distances.masked_fill(~allowed, torch.inf).topk(min(count, distances.shape[1]), largest=False).values
    return found.nan_to_num(posinf=0.0), found.isfinite()


def build(settings: Model, channels: int, outputs: int) -> NeighbourClassifier:
    """The model for images of `channels` and, besides, the level's mask, on the encoder that `model.encoder` names."""
    if outputs != 1:
        raise ValueError(f"neighbour_classifier judges one thing a level, not {outputs}")
    network = level_volume_classifier.build(settings, channels, settings.neighbours.width)
    return NeighbourClassifier(network, settings.neighbours)
