"""Slice and stage 1's seven vertebra probabilities in, logits out: an attribute_classifier of seven (phase 3b)."""

from cspine.anatomy import LEVELS
from cspine.config import Model
from cspine.models.attribute_classifier import AttributeClassifier, build_for


def build(settings: Model, channels: int, outputs: int) -> AttributeClassifier:
    """The model for images of `channels` (slices times windows) and `outputs` logits."""
    return build_for(len(LEVELS), settings, channels, outputs)
