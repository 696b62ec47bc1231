"""Provide kedge's zoo: one card per Keras application, the label lists, and the demo model."""

from kedge_models.cards import Card, card, cards, imagenet
from kedge_runtime.artefact.labels import read_labels, without_numbers
from kedge_runtime.image.pipelines import NORMALISATIONS

__all__ = [
    "NORMALISATIONS",
    "Card",
    "card",
    "cards",
    "imagenet",
    "read_labels",
    "without_numbers",
]
