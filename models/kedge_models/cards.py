"""Read and list the zoo's cards: the facts about a Keras application, as data, and its classes.

Each card is a file `cards/<name>.toml`, which states only what differs from the defaults below. To
add a model, add a file: `tests/test_cards.py` then compares it with Keras itself. Cards contain no
weights.

The label lists lie in `labels/`, in the format of `kedge_runtime.artefact.labels`. `imagenet.tsv`
holds the synsets and WordNet's first lemma, spelled as Keras's `decode_predictions` spells them.
Two names stand there twice (`crane` the bird and the machine, `maillot` with one and two pieces),
which is why a label has an id besides its name.
"""

from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.resources import files

import click

from kedge_models import toml
from kedge_runtime.artefact import labels
from kedge_runtime.artefact.contract import Geometry, Label, Normalisation
from kedge_runtime.artefact.kinds import Fit, Resize
from kedge_runtime.errors import ContractError, UsageError
from kedge_runtime.image.pipelines import NORMALISATIONS
from kedge_runtime.output import echo_json

_FOLDER = files("kedge_models").joinpath("labels")


def imagenet() -> tuple[Label, ...]:
    """Return the 1000 classes of ILSVRC 2012 in the order of their synsets."""
    return shipped("imagenet")


@cache
def shipped(name: str) -> tuple[Label, ...]:
    """Read one of kedge's own lists. Raises UsageError naming the lists that exist."""
    resource = _FOLDER.joinpath(f"{name}.tsv")
    if not resource.is_file():
        raise UsageError(f"no label list {name!r}; kedge ships {', '.join(_label_lists())}")
    return labels.parse(resource.read_text(encoding="utf-8"), f"{name}.tsv")


def _label_lists() -> list[str]:
    names = (item.name for item in _FOLDER.iterdir())
    return sorted(name.removesuffix(".tsv") for name in names if name.endswith(".tsv"))


@dataclass(frozen=True)
class Card:
    """An application: how to build it, its preprocessing, and its published accuracy.

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
        """Refuse unknown names and impossible values when the card is read."""
        if self.normalisation not in NORMALISATIONS:
            allowed = ", ".join(NORMALISATIONS)
            raise ContractError(
                f"card {self.name}: normalisation is {self.normalisation!r}, known are {allowed}"
            )
        if self.top1 is not None and not 0 < self.top1 < 100:
            raise ContractError(f"card {self.name}: top1 is {self.top1}, it is a per cent")
        self.geometry()

    def geometry(self) -> Geometry:
        """Return how an image becomes this model's input, unless the user's options differ."""
        return Geometry(self.size, self.size, self.resize, self.fit, self.crop_fraction)

    def normaliser(self) -> Normalisation:
        """Return how a byte becomes the network's number."""
        return NORMALISATIONS[self.normalisation]

    def label_list(self) -> tuple[Label, ...]:
        """Return the classes in the order of the output."""
        return shipped(self.labels)


@cache
def cards() -> dict[str, Card]:
    """Return every card by its name, in alphabetical order. Raises ContractError for a bad one."""
    return {name: parse(name, text) for name, text in toml.texts("cards").items()}


def parse(name: str, text: str) -> Card:
    """Read one card from TOML; by default the application has the card's name."""
    return toml.parse(Card, text, f"cards/{name}.toml", name=name, application=name)


def card(name: str) -> Card:
    """Return the card called `name` in any case. Raises UsageError with the closest names."""
    return toml.pick(name, cards(), "model", "kedge models lists all")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def models(as_json: bool) -> None:
    """List the Keras applications that kedge knows, one card each."""
    if as_json:
        found = [asdict(card) for card in cards().values()]
        echo_json({"schema": 1, "command": "models", "models": found})
        return
    click.echo(f"{'name':<20} {'size':>5} {'parameters':>12} {'top-1':>7}  normalisation")
    for card in cards().values():
        click.echo(_row(card))
    click.echo("\nkedge convert NAME takes any of them; `kedge convert demo` needs no download.")


def _row(card: Card) -> str:
    top1 = f"{card.top1:.1f} %" if card.top1 else "-"
    size, parameters = f"{card.size:>5}", f"{card.parameters / 1e6:>10.1f} M"
    return f"{card.name:<20} {size} {parameters} {top1:>7}  {card.normalisation}"
