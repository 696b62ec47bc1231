"""The zoo's cards: what kedge has to know about a Keras application, as data.

Each card is a file `cards/<name>.toml` which says only what differs from the defaults below. To add
a model, add a file: `tests/test_cards.py` then holds it against Keras itself. Cards carry no
weights.
"""

import difflib
import sys
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

from kedge_models.labels import shipped
from kedge_models.normalisations import NORMALISATIONS
from kedge_runtime.contract import Fit, Geometry, Label, Normalisation, Resize
from kedge_runtime.errors import ContractError, UsageError
from kedge_runtime.records import decode

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Card:
    """One application: how to build it, how to feed it, what is published about it.

    `name` is what the user types, `application` the function in keras.applications, `arguments`
    what it is called with beyond its defaults, `module` the submodule whose `preprocess_input` is
    the one of `normalisation`. `size` is the side of the square input in pixels. `parameters` were
    counted on the model with its top of 1000 classes; `top1` is the published accuracy on the
    ImageNet validation set in per cent, for the weights named "imagenet"; `paper` is its arXiv id.
    """

    name: str
    application: str
    module: str
    normalisation: str
    parameters: int
    year: int
    paper: str
    size: int = 224
    resize: Resize = Geometry.resize
    fit: Fit = Geometry.fit
    crop_fraction: float = Geometry.crop_fraction
    labels: str = "imagenet"
    top1: float | None = None
    top1_source: str = "Keras Applications table"
    arguments: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a card whose words lead nowhere, when it is read and not when it is used."""
        if self.normalisation not in NORMALISATIONS:
            known = ", ".join(NORMALISATIONS)
            raise ContractError(
                f"card {self.name}: normalisation is {self.normalisation!r}, known are {known}"
            )
        if self.top1 is not None and not 0 < self.top1 < 100:
            raise ContractError(f"card {self.name}: top1 is {self.top1}, it is a per cent")
        self.geometry()

    def geometry(self) -> Geometry:
        """How a picture becomes this model's input, unless the user says otherwise."""
        return Geometry(self.size, self.size, self.resize, self.fit, self.crop_fraction)

    def normaliser(self) -> Normalisation:
        """How a byte becomes the number that the network was trained on."""
        return NORMALISATIONS[self.normalisation]

    def label_list(self) -> tuple[Label, ...]:
        """Return the classes in the order of the output."""
        return shipped(self.labels)


@cache
def cards() -> dict[str, Card]:
    """Return every card by its name, in alphabetical order. Raises ContractError for a bad one."""
    folder = files("kedge_models").joinpath("cards")
    texts = {
        item.name.removesuffix(".toml"): item.read_text(encoding="utf-8")
        for item in folder.iterdir()
        if item.name.endswith(".toml")
    }
    return {name: parse(name, texts[name]) for name in sorted(texts, key=str.lower)}


def parse(name: str, text: str) -> Card:
    """Read one card from TOML; the application is called like the card unless it says otherwise."""
    where = f"cards/{name}.toml"
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ContractError(f"{where}: {error}") from None
    return decode(Card, {"name": name, "application": name, **values}, where)


def card(name: str) -> Card:
    """Return the card called `name` in any case. Raises UsageError with the closest names."""
    by_key = {key.lower(): value for key, value in cards().items()}
    if found := by_key.get(name.lower()):
        return found
    closest = [by_key[key].name for key in difflib.get_close_matches(name.lower(), by_key)]
    hint = f"did you mean {' or '.join(closest)}? " if closest else ""
    raise UsageError(f"no model called {name!r}: {hint}kedge models lists all")
