"""Open rich's console for the tables of the converter, as `terminal` decides."""

import sys

from rich.console import Console

from kedge_runtime.terminal import is_coloured, page_width


def console() -> Console:
    """Return a console on stdout with the colours and the width of all commands."""
    coloured = is_coloured(sys.stdout)
    return Console(
        width=page_width(),
        force_terminal=coloured,
        color_system="standard" if coloured else None,
        no_color=not coloured,
        highlight=False,
        markup=False,
        emoji=False,
    )
