"""Records of a source: what the user requests, what its file or card states, the loaded model."""

from dataclasses import dataclass, replace
from typing import Any

from kedge_models.cards import Card
from kedge_runtime.artefact.contract import Label, Normalisation
from kedge_runtime.artefact.kinds import Kind
from kedge_runtime.errors import UsageError
from kedge_runtime.image.input_options import InputOptions
from kedge_runtime.image.pipelines import PIPELINES, Pipeline


@dataclass(frozen=True)
class SourceRequest:
    """The user's options for a model; None leaves a fact to the card or the model itself.

    `model`: a card's name, `demo`, a model file or a SavedModel folder. `weights`: `imagenet` or a
    file, for a card. `pixels`: the preprocessing. `labels`: `imagenet` or a file; `folder`: images,
    whose class folders name the classes where no labels do. `head`: the output type. `size`: `224`
    or `160x192` (height x width), for a model of open size. `output`: name or index of one of
    several outputs; `signature`: name of one of a SavedModel's. `force_input`: keep the input even
    where another one fits the model better, or where the model normalises it once more. `command`:
    the command line, for messages that suggest the next one; `in_toml`: whether a kedge.toml states
    the options instead.

    Raises UsageError for empty words, which a shell's unset variable gives.
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
    force_input: bool = False
    command: str = ""
    in_toml: bool = False

    def __post_init__(self) -> None:
        """Refuse empty words: they would count as no option, or as the current folder."""
        if not self.model:
            raise UsageError("MODEL is empty: name a card (`kedge models`), demo, a file or folder")
        for name in ("weights", "card", "labels", "size", "output", "signature"):
            if getattr(self, name) == "":
                raise UsageError(f"--{name} is empty: give a value, or leave it out")


@dataclass(frozen=True)
class SourceFacts:
    """What a card or a file states of its model; None where only the user knows.

    `told_by`: the part of the file that states pipeline and normalisation, where no card does.
    """

    card: str = ""
    pipeline: Pipeline | None = None
    normalisation: Normalisation | None = None
    labels: tuple[Label, ...] | None = None
    told_by: str = ""

    @classmethod
    def of(cls, card: Card) -> "SourceFacts":
        """Return the facts of a card."""
        return cls(card.name, _pipeline(card), card.normaliser(), card.label_list())


def _pipeline(card: Card) -> Pipeline:
    """Return ImageNet's evaluation pipeline, with the card's own geometry."""
    return replace(
        PIPELINES["imagenet"],
        resize=card.resize,
        fit=card.fit,
        crop_fraction=card.crop_fraction,
        normalisation="",
    )


@dataclass(frozen=True)
class LoadedModel:
    """A Keras model as its source holds it, output activation included.

    `name`: for file names. `notes`: lines for the user on how it was loaded.
    """

    name: str
    model: Any
    facts: SourceFacts = SourceFacts()
    notes: tuple[str, ...] = ()
