"""Write to stdout and stderr, whose reader may leave and whose disk may be full.

`quiet` silences libraries that write there themselves.
"""

import contextlib
import io
import json
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

import click

from kedge_runtime.errors import UsageError, reason_of
from kedge_runtime.printable import message, printable, without_commands

# ESC of kedge's own colours, until `echo` writes them: no file can know it.
_PAINT = f"\ufdd0{os.urandom(8).hex()}\ufdd1"
# What a line holds beside text: on a terminal rich and progress.py move the cursor and colour.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_CONTROL_ON_TERMINAL = re.compile(r"(?!\x1b\[[\d;?]*[A-Za-z]|\r)[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class UnreadError(Exception):
    """Nobody reads the rest of what is printed."""


class OutputStream(io.FileIO):
    """A copy of a descriptor of the process, to write to.

    Its first failure is told, unless it `goes_on` without a reader; what comes then goes nowhere,
    as Python flushes once more at its end.
    """

    goes_on = True
    required = True  # else nothing that fails is told: stderr has nowhere to tell it
    _failed = False

    def write(self, data: Any) -> int:
        """Write bytes. Raises UnreadError without a reader, UsageError for what else fails."""
        if self._failed:
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except OSError as error:
            self._failed = True
            if self.required:
                self._tell(error)
            return memoryview(data).nbytes

    def _tell(self, error: OSError) -> None:
        if not isinstance(error, BrokenPipeError):
            reason = reason_of(error)
            raise UsageError(f"what is printed can't be written: {reason}") from None
        if not self.goes_on:
            raise UnreadError from None


class Text(io.TextIOWrapper):
    """Text on its way to a terminal or a log, without control characters and CI commands.

    The last guard: names are escaped where they are put into a line (`echo`, `say`), as only there
    their newlines can be told from kedge's own.
    """

    _begins = True  # whether a line does

    def write(self, text: str) -> int:
        """Write a text; return its length."""
        control = _CONTROL_ON_TERMINAL if self.isatty() or _is_coloured() else _CONTROL
        safe = control.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
        first, end, others = safe.partition("\n") if not self._begins else ("", "", safe)
        super().write(f"{first}{end}{without_commands(others)}")
        if text:
            self._begins = not text.rpartition("\n")[2].strip()
        return len(text)


def _is_coloured() -> bool:
    """Whether rich colours what is no terminal, as CI systems ask for."""
    return bool(os.environ.get("FORCE_COLOR"))


def echo(*lines: str) -> None:
    """Print lines on stdout, as `page` writes them."""
    click.echo(page(lines))


def page(lines: Iterable[str]) -> str:
    """Join lines to a text for click.echo: names in them are escaped, `paint` is shown."""
    return "\n".join(printable(line).replace(_PAINT, "\x1b") for line in lines)


def say(text: object, *, prefix: str = "kedge: ") -> None:
    """Print a message on stderr: one line of bounded length."""
    click.echo(f"{prefix}{message(text)}", err=True)


def paint(text: str, colour: str | None = None, *, bold: bool | None = None) -> str:
    """Return a text in a colour, for `page` and `echo`."""
    return click.style(text, fg=colour, bold=bold).replace("\x1b", _PAINT)


def echo_json(payload: Any, indent: int | None = 2) -> None:
    """Print one JSON object on stdout, as `json_text` writes it."""
    click.echo(json_text(payload, indent))


def json_text(payload: Any, indent: int | None = 2) -> str:
    """Write JSON in ASCII, exact and without effect on a terminal or a CI system.

    Raises ValueError for numbers that JSON does not have.
    """
    text = json.dumps(payload, indent=indent, allow_nan=False)
    return text.replace("\x7f", r"\u007f").replace("##", r"\u0023#")


@contextlib.contextmanager
def outputs() -> Iterator[OutputStream | None]:
    """Put such outputs in the place of Python's stdout and stderr; yield that of stdout.

    Streams that aren't the process's own, such as a notebook's or a test's, stay: None.
    """
    printed, stdout, stderr = None, sys.__stdout__, sys.__stderr__
    with contextlib.ExitStack() as stack:
        if stderr and stderr is sys.stderr:
            said = speaker(stderr.encoding)
            stack.enter_context(contextlib.redirect_stderr(stack.enter_context(said)))
        if stdout and stdout is sys.stdout:
            printed = OutputStream(os.dup(1), "w")
            # What the terminal has no sign for, or half of one in a name, is a question mark.
            text = text_to(printed, stdout.encoding, "replace")
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(text)))
        yield printed


def speaker(encoding: str = "utf-8") -> TextIO:
    """Return a copy of stderr, for any name, with a reader or not."""
    raw = OutputStream(os.dup(2), "w")
    raw.required = False
    return text_to(raw, encoding, "backslashreplace")


def text_to(raw: OutputStream, encoding: str, errors: str) -> TextIO:
    """Return a file of text over an output, flushed at each end of a line."""
    return Text(io.BufferedWriter(raw), encoding, errors, line_buffering=True)


# Where it all goes; the converter's worker has a log instead.
SINK = os.devnull


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Send stdout and stderr, Python's and the process's, to nowhere while a framework talks."""
    with contextlib.ExitStack() as stack:
        nowhere = stack.enter_context(Path(SINK).open("a", encoding="utf-8"))
        if sys.stdout is not None:
            sys.stdout.flush()
        for descriptor in (1, 2):
            stack.enter_context(_turned(descriptor, nowhere.fileno()))
        stack.enter_context(contextlib.redirect_stdout(nowhere))
        stack.enter_context(contextlib.redirect_stderr(nowhere))
        # Deprecations between the frameworks are theirs to mend, not the user's.
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def only_ours() -> Iterator[None]:
    """Send what libraries write to the process's stderr to nowhere, in every thread, for long.

    Python's own stderr goes on, through another descriptor.
    """

    with contextlib.ExitStack() as stack:
        nowhere = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
        if sys.stderr is sys.__stderr__:
            stack.enter_context(contextlib.redirect_stderr(stack.enter_context(speaker())))
        stack.enter_context(_turned(2, nowhere.fileno()))
        yield


@contextlib.contextmanager
def _turned(descriptor: int, target: int) -> Iterator[None]:
    saved = os.dup(descriptor)
    os.dup2(target, descriptor)
    try:
        yield
    finally:
        os.dup2(saved, descriptor)
        os.close(saved)
