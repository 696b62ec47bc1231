"""Define the options that several commands share, and the records that they become.

A group of options is a decorator: it adds the options to a command, and passes their values as one
record. A command collects its records and single options in a record of its own.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from kedge_runtime.artefact.content import trust_of
from kedge_runtime.artefact.contract import Contract
from kedge_runtime.artefact.file import ends_in_digest
from kedge_runtime.artefact.foreign import ForeignFacts, ModelFile, read_facts
from kedge_runtime.artefact.kinds import Kind
from kedge_runtime.artefact.model_options import ModelOptions
from kedge_runtime.commands.arguments import Several, completing
from kedge_runtime.commands.paths import FILE
from kedge_runtime.engines.choice import ENGINES, EngineOptions, open_engine
from kedge_runtime.errors import ArtefactError, EngineError, UsageError
from kedge_runtime.frozen import dataclass
from kedge_runtime.image.input_options import ALLOWED, InputOptions, refusal
from kedge_runtime.image.pipelines import NORMALISATIONS
from kedge_runtime.output import note, quiet

Command = TypeVar("Command", bound=Callable[..., Any])
Option = Callable[[Command], Command]


def group(*options: Option[Any]) -> Option[Any]:
    """Return a decorator that adds options to a command, in this order."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def record(name: str, read: Callable[..., Any], *options: Option[Any]) -> Option[Any]:
    """Return a decorator that adds options, and passes `read` of their values as `name`."""

    @group(*options)
    def holder() -> None: ...

    names = [parameter.name for parameter in holder.__click_params__]

    def add(command: Command) -> Any:
        command = _with_records(command)
        command.__kedge_records__[name] = names, read  # type: ignore[attr-defined]
        return group(*options)(command)

    return add


def _with_records(command: Any) -> Any:
    """Return the command that reads the records of its option groups, wrapped once for all."""
    if hasattr(command, "__kedge_records__"):
        return command
    records: dict[str, tuple[list[str], Callable[..., Any]]] = {}

    @wraps(command)
    def run(**values: Any) -> Any:
        for name, (names, read) in reversed(records.items()):
            values[name] = read(**{option: values.pop(option) for option in names})
        return command(**values)

    run.__kedge_records__ = records  # type: ignore[attr-defined]
    return run


as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")

scheduler = click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Run on a Dask cluster that sees the same paths: tcp://HOST:8786.",
)


_ENGINE, _THREADS = click.Choice(list(ENGINES)), click.IntRange(min=1)
_ALL_CORES = "Threads of the engine [default: all cores]."

delegate = click.option(
    "--delegate",
    shell_complete=completing(lambda: ["edgetpu"], files=True),
    help="edgetpu[:usb|pci|N], or the path of a delegate.",
)

_SINGLE_ENGINE = (
    click.option("--engine", type=_ENGINE, help="[default: the format's]"),
    delegate,
    click.option("--threads", type=_THREADS, help=_ALL_CORES),
)

# One engine, as `engine`: EngineOptions.
engine_options = record("engine", EngineOptions, *_SINGLE_ENGINE)
isolated_engine_options = record(
    "engine",
    EngineOptions,
    *_SINGLE_ENGINE,
    click.option(
        "--isolate",
        is_flag=True,
        help="Run the engine in a worker process with memory and time limits.",
    ),
)


@dataclass(frozen=True)
class EngineChoices:
    """Engines and numbers of threads to combine; None is the default of the machine."""

    engines: tuple[str, ...]
    delegate: str | None
    threads: tuple[int | None, ...]


# Several engines, as `engine`: EngineChoices.
engine_choices = record(
    "engine",
    EngineChoices,
    click.option(
        "--engine",
        "engines",
        type=Several(_ENGINE),
        metavar="NAME,...",
        default=(),
        help=f"{', '.join(ENGINES)} [default: the format's].",
    ),
    click.option(
        "--threads", type=Several(_THREADS), metavar="N,...", default=(None,), help=_ALL_CORES
    ),
    delegate,
)


# The demanded signature, as `trust`: Trust | None.
trust_options = record(
    "trust",
    trust_of,
    click.option("--key", type=FILE, metavar="PUB", help="Require a signature by this public key."),
    click.option(
        "--min-serial",
        type=click.IntRange(min=0),
        default=0,
        metavar="N",
        help="Require this serial number, or a higher one, in the signature.",
    ),
)


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
        help=f"How training loaded the images: {', '.join(ALLOWED['preprocess'])}.",
    ),
    click.option(
        "--normalisation",
        metavar="NAME|NUMBERS",
        shell_complete=completing(lambda: NORMALISATIONS),
        help=f"{', '.join(NORMALISATIONS)}, or numbers: 'scale=1/255 mean=.5 std=.5'.",
    ),
    click.option("--colour", type=_Word("colour"), help="Channel order of the input."),
    click.option(
        "--resize",
        type=_Word("resize"),
        metavar="METHOD",
        help=f"Replaces the pipeline's: {', '.join(ALLOWED['resize'])}.",
    ),
    click.option(
        "--fit",
        type=_Word("fit"),
        metavar="FIT",
        help=f"Replaces the pipeline's: {', '.join(ALLOWED['fit'])}.",
    ),
    click.option(
        "--crop",
        type=click.FloatRange(0.1, 1),
        metavar="FRACTION",
        help="Part of the image that --fit crop keeps, as .875.",
    ),
    click.option("--exif/--no-exif", default=None, help="Apply the EXIF orientation, or not."),
)

# What the command line says of the preprocessing, as `pixels`: InputOptions.
pixel_options = record("pixels", InputOptions, *_PIXELS)

_FOREIGN = (
    click.option(
        "--labels",
        type=FILE,
        metavar="FILE",
        help="Class names, one per line, in the order of the outputs.",
    ),
    click.option(
        "--head",
        type=click.Choice(get_args(Kind)),
        help="Output type. Detected from the last layer by default.",
    ),
    *_PIXELS,
)


def _foreign_words(labels: Path | None, head: Kind | None, **pixels: Any) -> ModelOptions:
    return ModelOptions(InputOptions(**pixels), labels, head)


# What the command line says of a model file without a seal, as `words`: ModelOptions.
foreign_options = record("words", _foreign_words, *_FOREIGN)


@dataclass(frozen=True)
class ForeignOptions:
    """What the command line says of the unsealed files: the facts of --contract, or options."""

    facts: ForeignFacts | None
    words: ModelOptions

    @classmethod
    def read(cls, contract: Path | None, **words: Any) -> "ForeignOptions":
        """Read the options. Raises UsageError for --contract beside others."""
        options = _foreign_words(**words)
        if contract is None:
            return cls(None, options)
        if options.given:
            raise UsageError(f"--contract: replaces {options.options()}; give one of them only")
        return cls(read_facts(contract), options)

    @property
    def flags(self) -> str:
        """The options as on the command line; empty for none."""
        return "--contract" if self.facts else self.words.options()

    def contract(self, model: ModelFile, engine: EngineOptions, command: str) -> Contract | None:
        """Return the contract of an unsealed file; print each detected fact on stderr.

        None for a sealed file, which has its own contract, and for a file that is no model.
        `command`: the call, for the message on missing facts. Raises UsageError, ContractError,
        EngineError.
        """
        if ends_in_digest(model.content.data):
            return None
        if self.facts:
            return self.facts.contract(model.content)
        from kedge_runtime.artefact.foreign_contract import derive_contract

        with quiet():
            try:
                opened = open_engine(model.content, replace(engine, isolate=True))
            except (ArtefactError, EngineError):
                if self.words.given or model.unpacked:
                    raise
                return None  # reading the seal gives a better message
            detected = derive_contract(model, self.words, opened, command)
        for line in detected.lines:
            note(line)
        return detected.contract

    def refuse_all_sealed(self, sealed: Iterable[bool]) -> None:
        """Raise UsageError for options of unsealed files where all files are sealed."""
        if self.flags and all(sealed):
            raise UsageError(
                f"{self.flags}: every artefact has its own contract; omit the option "
                "(`kedge seal --reseal` replaces a contract)"
            )


# What the command line says of unsealed files among artefacts, as `foreign`: ForeignOptions.
contract_options = record(
    "foreign",
    ForeignOptions.read,
    click.option("--contract", type=FILE, metavar="JSON", help="Contract of unsealed files."),
    *_FOREIGN,
)
