"""The options for files that kedge didn't make, and what they make of such a file."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from kedge_runtime.artefact import ends_in_digest
from kedge_runtime.commands.pixel_options import pixel_options, pixel_words
from kedge_runtime.contract import Contract, Kind
from kedge_runtime.engines import EngineOptions, open_engine
from kedge_runtime.errors import ArtefactError, EngineError, UsageError
from kedge_runtime.foreign import Facts, read_facts
from kedge_runtime.foreign_words import ForeignWords, told
from kedge_runtime.model_files import ModelFile
from kedge_runtime.output import say
from kedge_runtime.quiet import quiet

Command = TypeVar("Command", bound=Callable[..., Any])
FILE = click.Path(path_type=Path, dir_okay=False)

_OPTIONS = (
    click.option(
        "--labels", type=FILE, metavar="FILE", help="A class a line, in the order of the output."
    ),
    click.option("--head", type=click.Choice(get_args(Kind)), help="What the model's numbers are."),
)


def foreign_options(command: Command) -> Command:
    """Add the options; `foreign_words` reads them."""
    for option in reversed(_OPTIONS):
        command = option(pixel_options(command) if option is _OPTIONS[-1] else command)
    return command


def foreign_words(options: dict[str, Any], threshold: float | None = None) -> ForeignWords:
    """Return what the options say. Raises UsageError."""
    return ForeignWords(pixel_words(options), options["labels"], options["head"], threshold)


@dataclass(frozen=True)
class Said:
    """What was said of the unsealed files among those of a call: a contract's parts, or words."""

    facts: Facts | None
    words: ForeignWords
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
            found = told(model, self.words, engine, command)
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


def read_said(options: dict[str, Any], engine: EngineOptions) -> Said:
    """Return what the options say. Raises UsageError for --contract beside others."""
    words = foreign_words(options)
    if options["contract"] and words.given:
        raise UsageError(f"--contract: says what {words.options()} says; leave one of them out")
    return Said(read_facts(options["contract"]) if options["contract"] else None, words, engine)
