"""The options by which commands name a device, and what a file must hold on it."""

from collections.abc import Callable
from typing import Any

import click

from kedge_runtime.commands.options import SHARE

OPTIONS = (
    click.option("--device", help="What it is for: pi4, coral, ... (docs/edge.md)."),
    click.option(
        "--min-mapped",
        type=SHARE,
        default=1.0,
        show_default=True,
        help="Least share of operators on the device's accelerator.",
    ),
    click.option(
        "--max-sram", type=click.FloatRange(0), help="Most SRAM in KB, instead of the device's."
    ),
)


def device_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--device`, `--min-mapped` and `--max-sram`."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command
