"""What the user says of a model, and what a kind of source knows of it."""

from dataclasses import dataclass
from typing import Any

from kedge_models import Card
from kedge_runtime.contract import Geometry, Kind, Label, Normalisation


@dataclass(frozen=True)
class Request:
    """What the user says of the model; `None` where the card or the model itself tells.

    `model`: a card's name, `demo`, a Keras file or a SavedModel folder. `weights`: `imagenet`,
    `none` or a file, for a card. `preprocess`: `card`, or `keras` for load_img + preprocess_input.
    `labels`: `imagenet` or a file. `head`: what the model's numbers are. `size`: `224` or
    `160x192` (height x width), for a model that takes any. `output`: the name or index of one of
    several; `signature`: the name of one of a SavedModel's.
    """

    model: str
    weights: str = "imagenet"
    card: str | None = None
    preprocess: str = "card"
    normalisation: str | None = None
    labels: str | None = None
    head: Kind | None = None
    size: str | None = None
    output: str | None = None
    signature: str | None = None


@dataclass(frozen=True)
class Facts:
    """What is known of a model before the user adds to it; None where only the user can tell."""

    card: str = ""
    geometry: Geometry = Geometry(1, 1)
    normalisation: Normalisation | None = None
    labels: tuple[Label, ...] | None = None

    @classmethod
    def of(cls, card: Card) -> "Facts":
        """Return what a card knows."""
        return cls(card.name, card.geometry(), card.normaliser(), card.label_list())


@dataclass(frozen=True)
class Found:
    """A Keras model as its source gives it, with whatever head it has; `name` is for file names.

    `notes`: what the user should know of how it was loaded, a line each.
    """

    name: str
    model: Any
    facts: Facts = Facts()
    notes: tuple[str, ...] = ()
