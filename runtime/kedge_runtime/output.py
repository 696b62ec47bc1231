"""Write to stdout and stderr, also where a pipe is closed or the disk is full.

`quiet` silences libraries that write there themselves.
"""

import contextlib
import io
import json
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

import click

from kedge_runtime import terminal
from kedge_runtime.errors import UsageError, reason_of
from kedge_runtime.printable import message, printable, without_commands

# Stands for ESC in kedge's own colours until `echo` writes them; no file can contain it.
_PAINT = f"\ufdd0{os.urandom(8).hex()}\ufdd1"
# Control characters; on a terminal progress.py needs cursor moves and colours.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_CONTROL_ON_TERMINAL = re.compile(r"(?!\x1b\[[\d;?]*[A-Za-z]|\r)[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class UnreadError(Exception):
    """Raised when stdout is closed before all is printed."""


# Bytes of the longest line that a signal can't cut: one of 1000 classes has 100 000.
LONGEST_LINE = 1 << 20


class OutputStream(io.BufferedWriter):
    """Writes to a copy of a descriptor of the process, each byte once.

    A signal may end a command while a full pipe takes no more. Between a system call and the count
    of what it wrote no Python code may run then, or the signal's exception comes in between: the
    file below is Python's own, in C, and this class only wraps whole calls. What is left of a line
    stays in the buffer, and follows with the next flush.

    The first failure raises, except a closed pipe where the stream `goes_on`. Later output is
    discarded, as Python flushes once more at its end.
    """

    goes_on = True
    required = True  # False for stderr, whose failures can't be reported anywhere
    _failed = False

    def __init__(self, descriptor: int) -> None:
        """Take over a descriptor."""
        super().__init__(io.FileIO(descriptor, "w"), LONGEST_LINE)

    def write(self, data: Any) -> int:
        """Write bytes. Raises UnreadError for a closed pipe, UsageError for other failures."""
        if self._failed:
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except OSError as error:
            self._fail(error)
            return memoryview(data).nbytes

    def flush(self) -> None:
        """Write what the buffer holds. Raises as `write`."""
        if self._failed:
            return
        try:
            super().flush()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        self._failed = True
        if self.required:
            self._report(error)

    def _report(self, error: OSError) -> None:
        if not isinstance(error, BrokenPipeError):
            reason = reason_of(error)
            raise UsageError(f"stdout can't be written: {reason}") from None
        if not self.goes_on:
            raise UnreadError from None


class Text(io.TextIOWrapper):
    """Writes text to a terminal or a log, without control characters and CI commands.

    This is the last guard: `echo` and `say` escape names where they enter a line, as only there
    their newlines differ from kedge's own.
    """

    _at_line_start = True

    def write(self, text: str) -> int:
        """Write a text; return its length."""
        shows = self.isatty() or terminal.is_coloured(self)
        control = _CONTROL_ON_TERMINAL if shows else _CONTROL
        safe = control.sub(lambda match: f"\\x{ord(match[0]):02x}", text)
        first, end, others = safe.partition("\n") if not self._at_line_start else ("", "", safe)
        super().write(f"{first}{end}{without_commands(others)}")
        if text:
            self._at_line_start = not text.rpartition("\n")[2].strip()
        return len(text)


def echo(*lines: str) -> None:
    """Print lines on stdout, escaped by `page`."""
    echo_page(page(lines))


def echo_page(text: str) -> None:
    """Print a text that `page` made on stdout, coloured where `terminal.is_coloured` says so."""
    click.echo(text, color=terminal.is_coloured(sys.stdout))


def page(lines: Iterable[str]) -> str:
    """Join lines to a text for click.echo: escape names, show the colours of `paint`."""
    return "\n".join(printable(line).replace(_PAINT, "\x1b") for line in lines)


# Called before a message: a progress bar takes its line away.
BEFORE_MESSAGE: list[Callable[[], None]] = []


def say(
    text: object, *, prefix: str = "kedge: ", run: str = "", stream: TextIO | None = None
) -> None:
    """Print a message on stderr: one line of bounded length, which wraps on a terminal only.

    `run`: a command to copy, never cut, which gets lines of its own on a terminal.
    `stream`: instead of stderr.
    """
    stream = stream or sys.stderr
    for step_aside in BEFORE_MESSAGE:
        step_aside()
    line, command = f"{prefix}{message(text)}", printable(run)
    if terminal.is_tty(stream):
        width = terminal.columns()
        lines = terminal.wrapped(line, width, hanging="  ")
        lines += terminal.wrapped_command(command, width) if command else []
    else:
        lines = [f"{line} {command}" if command else line]
    click.echo("\n".join(lines), file=stream, color=terminal.is_coloured(stream))


def note(text: object, *, prefix: str = "kedge: ", stream: TextIO | None = None) -> None:
    """Print information on stderr, as `say` does, but not with --quiet."""
    if not terminal.VERBOSITY.quiet:
        say(text, prefix=prefix, stream=stream)


def percent(share: float, digits: int = 1) -> str:
    """Return a share as kedge prints all of them, e.g. `94.6 %`."""
    return f"{100 * share:.{digits}f} %"


def paint(text: str, colour: str | None = None, *, bold: bool | None = None) -> str:
    """Return a text in a colour, for `page` and `echo`."""
    return click.style(text, fg=colour, bold=bold).replace("\x1b", _PAINT)


def echo_folded(line: str, *, colour: str | None = None) -> None:
    """Print a sentence on stdout; on a terminal it wraps, below its own start or its indent."""
    text, width = printable(line), terminal.fold_width(sys.stdout)
    body = text.lstrip(" ")
    indent = text[: len(text) - len(body)]
    hanging = indent + "  "
    lines = terminal.wrapped(body, width, first=indent, hanging=hanging) if width else [text]
    echo(*(paint(each, colour) if colour else each for each in lines))


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
    """Replace Python's stdout and stderr by output streams; yield that of stdout.

    Other streams, such as a notebook's or a test's, stay, and None is yielded.
    """
    printed, stdout, stderr = None, sys.__stdout__, sys.__stderr__
    with contextlib.ExitStack() as stack:
        if stderr and stderr is sys.stderr:
            text = copy_of_stderr(stderr.encoding)
            stack.enter_context(contextlib.redirect_stderr(stack.enter_context(text)))
        if stdout and stdout is sys.stdout:
            printed = OutputStream(os.dup(1))
            # A character that the encoding lacks, or half of one, becomes a question mark.
            text = text_to(printed, stdout.encoding, "replace")
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(text)))
        yield printed


def copy_of_stderr(encoding: str = "utf-8") -> TextIO:
    """Return a copy of stderr that writes any name, and whose failures are ignored."""
    stream = OutputStream(os.dup(2))
    stream.required = False
    return text_to(stream, encoding, "backslashreplace")


def text_to(stream: OutputStream, encoding: str, errors: str) -> TextIO:
    """Return a text file on an output stream, flushed after each line."""
    return Text(stream, encoding, errors, line_buffering=True)


# Where `quiet` sends output; the worker process of the converter sets a log instead.
SINK = os.devnull


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Discard stdout and stderr, Python's and the process's, while a library prints.

    With --verbose both go to stderr. They are the whole process's: the first of several threads
    takes them away, and the last one that leaves gives them back.
    """
    with _QUIET.lock:
        if not _QUIET.inside:
            _QUIET.away.enter_context(_discarded())
        _QUIET.inside += 1
    try:
        yield
    finally:
        with _QUIET.lock:
            _QUIET.inside -= 1
            if not _QUIET.inside:
                _QUIET.away.close()


class _Quiet:
    """How many are inside `quiet`, and what they took away."""

    def __init__(self) -> None:
        self.lock, self.inside, self.away = threading.RLock(), 0, contextlib.ExitStack()


_QUIET = _Quiet()


@contextlib.contextmanager
def _discarded() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        if terminal.VERBOSITY.verbose and os.devnull == SINK:
            stack.enter_context(_redirected(1, 2))
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
            yield
            return
        sink = stack.enter_context(Path(SINK).open("a", encoding="utf-8"))
        if sys.stdout is not None:
            sys.stdout.flush()
        for descriptor in (1, 2):
            stack.enter_context(_redirected(descriptor, sink.fileno()))
        stack.enter_context(contextlib.redirect_stdout(sink))
        stack.enter_context(contextlib.redirect_stderr(sink))
        # Users can't fix deprecations between the frameworks.
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def only_python_stderr() -> Iterator[None]:
    """Discard what libraries write to the process's stderr, in every thread.

    Python's own stderr still works, through another descriptor. With --verbose nothing is
    discarded.
    """
    if terminal.VERBOSITY.verbose:
        yield
        return
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
        if sys.stderr is sys.__stderr__:
            stack.enter_context(contextlib.redirect_stderr(stack.enter_context(copy_of_stderr())))
        stack.enter_context(_redirected(2, sink.fileno()))
        yield


@contextlib.contextmanager
def _redirected(descriptor: int, target: int) -> Iterator[None]:
    saved = os.dup(descriptor)
    os.dup2(target, descriptor)
    try:
        yield
    finally:
        os.dup2(saved, descriptor)
        os.close(saved)
