"""The options that demand a signature."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kedge_runtime.content import trust_of

if TYPE_CHECKING:
    from kedge_runtime.signature import Trust


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
