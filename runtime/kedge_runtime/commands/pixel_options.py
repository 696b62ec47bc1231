"""The options that say how images become the input: the same for every command that asks."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

import click

from kedge_runtime.errors import UsageError
from kedge_runtime.normalisations import NORMALISATIONS
from kedge_runtime.pixels import ALLOWED, PixelWords, refused

Command = TypeVar("Command", bound=Callable[..., Any])


# click's types became generic in 8.3; kedge runs on older ones.
class _Word(click.Choice):  # type: ignore[type-arg]
    """One of the words that ALLOWED has for an option; another is refused with the nearest."""

    def __init__(self, option: str) -> None:
        super().__init__(ALLOWED[option])
        self.option = option

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        """Return the word. Raises UsageError."""
        if value not in self.choices:
            raise UsageError(refused(self.option, value))
        return str(value)


_OPTIONS = (
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
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def pixel_words(options: dict[str, Any]) -> PixelWords:
    """Return what the options say. Raises UsageError."""
    return PixelWords(**{each.name: options[each.name] for each in fields(PixelWords)})
