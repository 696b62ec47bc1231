"""What the user says of a model, and what a kind of source knows of it."""

from dataclasses import dataclass, replace
from typing import Any

from kedge_models.cards import Card
from kedge_runtime.artefact.contract import Kind, Label, Normalisation
from kedge_runtime.errors import UsageError
from kedge_runtime.image.input_options import InputOptions
from kedge_runtime.image.pipelines import PIPELINES, Pipeline


@dataclass(frozen=True)
class SourceRequest:
    """What the user says of the model; `None` where the card or the model itself tells.

    `model`: a card's name, `demo`, a Keras file or a SavedModel folder. `weights`: `imagenet`,
    `none` or a file, for a card. `pixels`: how images become its input. `labels`: `imagenet` or a
    file; `folder`: of images, whose class folders name the classes where no labels do. `head`: what
    the model's numbers are. `size`: `224` or `160x192` (height x width), for a model that takes
    any. `output`: the name or index of one of several; `signature`: the name of one of a
    SavedModel's. `command`: as it was typed, for messages that say how to go on. Raises UsageError
    for empty words, as a shell's unset variable gives them.
    """

    model: str
    weights: str = "imagenet"
    card: str | None = None
    pixels: InputOptions = InputOptions()
    labels: str | None = None
    folder: str | None = None
    head: Kind | None = None
    size: str | None = None
    output: str | None = None
    signature: str | None = None
    command: str = ""

    def __post_init__(self) -> None:
        """Refuse empty words: they would count as nothing said, or as this folder."""
        if not self.model:
            raise UsageError("MODEL is empty: name a card (`kedge models`), demo, a file or folder")
        for name in ("weights", "card", "labels", "size", "output", "signature"):
            if getattr(self, name) == "":
                raise UsageError(f"--{name} is empty: give a value, or leave it out")


@dataclass(frozen=True)
class SourceFacts:
    """What is known of a model before the user adds to it; None where only the user can tell.

    `told_by`: what of the file tells the pipeline and the normalisation, where no card does.
    """

    card: str = ""
    pipeline: Pipeline | None = None
    normalisation: Normalisation | None = None
    labels: tuple[Label, ...] | None = None
    told_by: str = ""

    @classmethod
    def of(cls, card: Card) -> "SourceFacts":
        """Return what a card knows."""
        return cls(card.name, _pipeline(card), card.normaliser(), card.label_list())


def _pipeline(card: Card) -> Pipeline:
    """Return how a card's model is evaluated: as ImageNet's are, unless the card says otherwise."""
    return replace(
        PIPELINES["imagenet"],
        resize=card.resize,
        fit=card.fit,
        crop_fraction=card.crop_fraction,
        normalisation="",
    )


@dataclass(frozen=True)
class LoadedModel:
    """A Keras model as its source gives it, with whatever head it has; `name` is for file names.

    `notes`: what the user should know of how it was loaded, a line each.
    """

    name: str
    model: Any
    facts: SourceFacts = SourceFacts()
    notes: tuple[str, ...] = ()
