"""kedge's zoo: one card per Keras application, the label lists, and the demo model."""

from kedge_models.cards import Card, card, cards
from kedge_models.labels import imagenet, read_labels, without_numbers
from kedge_runtime.normalisations import NORMALISATIONS

__all__ = [
    "NORMALISATIONS",
    "Card",
    "card",
    "cards",
    "imagenet",
    "read_labels",
    "without_numbers",
]
