"""Options that several commands share, and the records that they become."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click

from kedge_runtime.artefact.content import trust_of
from kedge_runtime.artefact.contract import Contract, Kind
from kedge_runtime.artefact.file import ends_in_digest
from kedge_runtime.artefact.foreign import ForeignFacts, ModelFile, read_facts
from kedge_runtime.artefact.foreign_contract import ModelOptions, derive_contract
from kedge_runtime.engines.choice import EngineOptions, open_engine
from kedge_runtime.errors import ArtefactError, EngineError, UsageError
from kedge_runtime.image.input_options import ALLOWED, InputOptions, refusal
from kedge_runtime.image.pipelines import NORMALISATIONS
from kedge_runtime.output import quiet, say

if TYPE_CHECKING:
    from kedge_runtime.artefact.signing import Trust

scheduler = click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Let a Dask cluster do it, which sees the same files: tcp://HOST:8786.",
)


isolate_option = click.option(
    "--isolate",
    is_flag=True,
    help="Run the engine in a process of its own, under memory and time bounds.",
)


class Share(click.FloatRange):
    """A number in 0..1; who gives per cent is told how to write it."""

    name = "share"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the share. Fails for what is no number, or lies outside."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            self.fail(f"{error.message.rstrip('.')}: give a share, as .99", param, ctx)


SHARE = Share(0, 1)

_DROP = re.compile(r"((?:\d+\.?\d*|\.\d+)(?:e-?\d+)?)\s*(pp|%)?")


def read_drop(value: str | float) -> float:
    """Return a drop in accuracy, a share of the images, 0..1.

    `0.5pp` (percentage points), `0.5%` or `.005`. Raises ValueError for anything else, a bare 1
    included: who writes it means a point, and as a share it is a gate that nothing fails.
    """
    found = _DROP.fullmatch(str(value).strip())
    number, unit = (float(found[1]), found[2]) if found else (-1.0, None)
    if not 0 <= number <= 100:
        raise ValueError(f"{value!r} is no drop: allowed are 0pp to 100pp, as 0.5pp or .005")
    if unit is None and number >= 1:
        share = f"{number / 100:g}".removeprefix("0")
        raise ValueError(f"{value} would be {100 * number:g} points: give {number:g}pp or {share}")
    return number / 100 if unit else number


# click's types became generic in 8.3; kedge runs on older ones.
class Drop(click.ParamType):  # type: ignore[type-arg]
    """A drop in accuracy, as `read_drop` reads it."""

    name = "drop"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Return the share. Fails with what is allowed."""
        try:
            return read_drop(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


DROP = Drop()


Command = TypeVar("Command", bound=Callable[..., Any])


def trust_options(command: Command) -> Command:
    """Add the options; `read_trust` reads them."""
    key = click.option(
        "--key",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="PUB",
        help="Demand a signature with this key.",
    )
    serial = click.option(
        "--min-serial",
        type=click.IntRange(min=0),
        default=0,
        metavar="N",
        help="Demand a signature with this serial number or a higher one.",
    )
    return key(serial(command))


def read_trust(options: dict[str, Any]) -> "Trust | None":
    """Return what the options demand, None for nothing. Raises UsageError."""
    return trust_of(options["key"], options["min_serial"])


# click's types became generic in 8.3; kedge runs on older ones.
class _Word(click.Choice):  # type: ignore[type-arg]
    """One of the words that ALLOWED has for an option; another is refused with the nearest."""

    def __init__(self, option: str) -> None:
        super().__init__(ALLOWED[option])
        self.option = option

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        """Return the word. Raises UsageError."""
        if value not in self.choices:
            raise UsageError(refusal(self.option, value))
        return str(value)


_PIXELS = (
    click.option(
        "--preprocess",
        type=_Word("preprocess"),
        metavar="PIPELINE",
        help=f"How images were loaded in training: {', '.join(ALLOWED['preprocess'])}.",
    ),
    click.option(
        "--normalisation",
        metavar="NAME|NUMBERS",
        help=f"{', '.join(NORMALISATIONS)}, or numbers: 'scale=1/255 mean=.5 std=.5'.",
    ),
    click.option("--colour", type=_Word("colour"), help="Order of the input's channels."),
    click.option(
        "--resize",
        type=_Word("resize"),
        metavar="METHOD",
        help=f"Instead of the pipeline's: {', '.join(ALLOWED['resize'])}.",
    ),
    click.option(
        "--fit",
        type=_Word("fit"),
        metavar="FIT",
        help=f"Instead of the pipeline's: {', '.join(ALLOWED['fit'])}.",
    ),
    click.option(
        "--crop",
        type=click.FloatRange(0.1, 1),
        metavar="FRACTION",
        help="Part of the image that --fit crop keeps, as .875.",
    ),
    click.option(
        "--exif/--no-exif", default=None, help="Turn images by their EXIF orientation, or not."
    ),
)


def pixel_options(command: Command) -> Command:
    """Add the options; `pixel_words` reads them."""
    for option in reversed(_PIXELS):
        command = option(command)
    return command


def pixel_words(options: dict[str, Any]) -> InputOptions:
    """Return what the options say. Raises UsageError."""
    return InputOptions(**{each.name: options[each.name] for each in fields(InputOptions)})


FILE = click.Path(path_type=Path, dir_okay=False)

_FOREIGN = (
    click.option(
        "--labels", type=FILE, metavar="FILE", help="A class a line, in the order of the output."
    ),
    click.option("--head", type=click.Choice(get_args(Kind)), help="What the model's numbers are."),
)


def foreign_options(command: Command) -> Command:
    """Add the options; `foreign_words` reads them."""
    for option in reversed(_FOREIGN):
        command = option(pixel_options(command) if option is _FOREIGN[-1] else command)
    return command


def foreign_words(options: dict[str, Any], threshold: float | None = None) -> ModelOptions:
    """Return what the options say. Raises UsageError."""
    return ModelOptions(pixel_words(options), options["labels"], options["head"], threshold)


@dataclass(frozen=True)
class ForeignOptions:
    """What was said of the unsealed files among those of a call: a contract's parts, or words."""

    facts: ForeignFacts | None
    words: ModelOptions
    engine: EngineOptions

    @property
    def given(self) -> str:
        """The options that were said; empty for none."""
        return "--contract" if self.facts else self.words.options()

    def contract(self, model: ModelFile, command: str) -> Contract | None:
        """Return the contract of an unsealed file; what was taken goes to stderr, a line each.

        None for a sealed file, which carries its own, and for what is no model at all. `command`:
        the call, for the message on missing facts. Raises UsageError, ContractError, EngineError.
        """
        if ends_in_digest(model.content.data):
            return None
        if self.facts:
            return self.facts.contract(model.content)
        with quiet():
            try:
                engine = open_engine(model.content, replace(self.engine, isolate=True))
            except (ArtefactError, EngineError):
                if self.words.given or model.unpacked:
                    raise
                return None  # whoever reads the seal says better what this isn't
            found = derive_contract(model, self.words, engine, command)
        for line in found.lines:
            say(line)
        return found.contract

    def refuse_all_sealed(self, sealed: Iterable[bool]) -> None:
        """Raise UsageError where there is no file that what was said could be of."""
        if self.given and all(sealed):
            raise UsageError(
                f"{self.given}: every artefact carries its own contract; leave it out "
                "(`kedge seal --reseal` replaces one)"
            )


def read_said(options: dict[str, Any], engine: EngineOptions) -> ForeignOptions:
    """Return what the options say. Raises UsageError for --contract beside others."""
    words = foreign_words(options)
    if options["contract"] and words.given:
        raise UsageError(f"--contract: says what {words.options()} says; leave one of them out")
    return ForeignOptions(
        read_facts(options["contract"]) if options["contract"] else None, words, engine
    )
