"""The options that say how images become the input: the same for every command that asks."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

import click

from kedge_runtime.normalisations import NORMALISATIONS
from kedge_runtime.pixels import ALLOWED, PixelWords

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--preprocess",
        type=click.Choice(ALLOWED["preprocess"]),
        metavar="PIPELINE",
        help=f"How images were loaded in training: {', '.join(ALLOWED['preprocess'])}.",
    ),
    click.option(
        "--normalisation",
        metavar="NAME|NUMBERS",
        help=f"{', '.join(NORMALISATIONS)}, or numbers: 'scale=1/255 mean=.5 std=.5'.",
    ),
    click.option(
        "--colour", type=click.Choice(ALLOWED["colour"]), help="Order of the input's channels."
    ),
    click.option(
        "--resize",
        type=click.Choice(ALLOWED["resize"]),
        metavar="METHOD",
        help=f"Instead of the pipeline's: {', '.join(ALLOWED['resize'])}.",
    ),
    click.option(
        "--fit",
        type=click.Choice(ALLOWED["fit"]),
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
