"""Decide for all commands how stdout and stderr are used: colours, width, wrapping, verbosity.

- `NO_COLOR` and `CLICOLOR=0` switch colours off, `FORCE_COLOR` and `CLICOLOR_FORCE` on, in this
  order. Otherwise a terminal has colours, except with `TERM=dumb`. See https://no-color.org and
  https://bixense.com/clicolors.
- `COLUMNS` sets the width. Otherwise it is the terminal's, and 80 without one.
- Text for people wraps between words on a terminal. In a pipe a message is one line.
"""

import os
import re
import sys
from collections.abc import Iterator
from textwrap import wrap
from typing import IO, Any

# Columns: where nothing states them, and beyond which sentences are hard to read.
DEFAULT, WIDEST = 80, 120
# A number stays beside its unit or its next three digits.
_BOUND = re.compile(r"(?<=\d) (?=(?:%|\d{3}|MB|GB|KB|ms|s|points?)(?:\b|\W|$))")
_NO_BREAK = "\u00a0"


class Verbosity:
    """How much a command says: `quiet` has results, warnings and errors only."""

    quiet = False
    verbose = False


# Set by -q and -v; `kedge_runtime.cli.main` resets it.
VERBOSITY = Verbosity()


def is_terminal(stream: IO[Any] | None) -> bool:
    """Whether a stream is a terminal that can redraw a line.

    A cell of a notebook is none: `!kedge` runs on a terminal there, but each redrawn bar becomes a
    line of the page. Jupyter's kernels set JPY_PARENT_PID.
    """
    redraws = os.environ.get("TERM") != "dumb" and "JPY_PARENT_PID" not in os.environ
    return is_tty(stream) and redraws


def is_tty(stream: IO[Any] | None) -> bool:
    """Whether a person reads a stream on a terminal, of whatever kind."""
    return stream is not None and not stream.closed and stream.isatty()


def is_coloured(stream: IO[Any] | None) -> bool:
    """Whether colours are written to a stream."""
    if os.environ.get("NO_COLOR") or os.environ.get("CLICOLOR") == "0":
        return False
    if any(
        os.environ.get(name, "0") not in ("", "0") for name in ("FORCE_COLOR", "CLICOLOR_FORCE")
    ):
        return True
    return is_terminal(stream)


def columns() -> int:
    """Return the width of the terminal, at least 1."""
    return next(_stated_columns(), DEFAULT)


def _stated_columns() -> Iterator[int]:
    if _is_stated():
        yield int(os.environ["COLUMNS"])
    for stream in (sys.__stdout__, sys.__stderr__):
        try:
            size = os.get_terminal_size(stream.fileno() if stream else -1).columns
        except (OSError, ValueError):  # closed, or no terminal
            continue
        if size > 0:
            yield size


def fold_width(stream: IO[Any] | None) -> int | None:
    """Return the width at which a page's sentences wrap; None in a pipe without COLUMNS."""
    return page_width() if is_tty(stream) or _is_stated() else None


def _is_stated() -> bool:
    stated = os.environ.get("COLUMNS", "")
    return stated.isdecimal() and int(stated) > 0


def page_width() -> int:
    """Return the width of a page of tables and sentences."""
    return min(columns(), WIDEST)


def wrapped(text: str, width: int, *, hanging: str = "", first: str = "") -> list[str]:
    """Break a text between words into lines of at most `width`; at least one line.

    `first` and `hanging` indent the first and the other lines. A longer word gets a line of its
    own, whole. A number stays beside its unit.
    """
    bound = _BOUND.sub(_NO_BREAK, text)
    lines = wrap(
        bound,
        max(width, 1),
        initial_indent=first,
        subsequent_indent=hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(_NO_BREAK, " ") for line in lines] or [first.rstrip()]


def wrapped_command(command: str, width: int, indent: str = "  ") -> list[str]:
    """Break a shell command between its words, with the backslashes that a shell joins again."""
    import shlex  # few messages hold a command

    lines = [indent.rstrip()]
    for phrase in _phrases(shlex.split(command)):
        longer = f"{lines[-1]} {phrase}" if lines[-1].strip() else f"{indent}{phrase}"
        if len(longer) + len(" \\") <= width or not lines[-1].strip():
            lines[-1] = longer
        else:
            lines.append(f"{indent}  {phrase}")
    return [*(f"{line} \\" for line in lines[:-1]), lines[-1]]


def _phrases(words: list[str]) -> list[str]:
    """Return quoted words; an option and its value are one."""
    import shlex

    phrases: list[str] = []
    for word in words:
        is_value = phrases and phrases[-1].startswith("-") and " " not in phrases[-1]
        if is_value and not word.startswith("-"):
            phrases[-1] += f" {shlex.quote(word)}"
        else:
            phrases.append(shlex.quote(word))
    return phrases
