"""stdout and stderr of the command line, whose reader may leave and whose disk may be full.

`| head` leaves when it has what it wants. A command that answers ends then, and well; one that
judges goes on, as its exit code is still to tell.
"""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from kedge_runtime.errors import UsageError, reason_of


class UnreadError(Exception):
    """Nobody reads the rest of what is printed."""


class Output(io.FileIO):
    """A copy of a descriptor of the process, to write to.

    Its first failure is told, unless it `goes_on` without a reader; what comes then goes nowhere,
    as Python flushes once more at its end.
    """

    goes_on = True
    _failed = False

    def write(self, data: Any) -> int:
        """Write bytes. Raises UnreadError without a reader, UsageError for what else fails."""
        if self._failed:
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except OSError as error:
            self._failed = True
            if not isinstance(error, BrokenPipeError):
                reason = reason_of(error)
                raise UsageError(f"what is printed can't be written: {reason}") from None
            if not self.goes_on:
                raise UnreadError from None
            return memoryview(data).nbytes


@contextlib.contextmanager
def outputs() -> Iterator[Output | None]:
    """Put such outputs in the place of Python's stdout and stderr; yield that of stdout.

    Streams that aren't the process's own, such as a notebook's or a test's, stay: None.
    """
    printed, stdout, stderr = None, sys.__stdout__, sys.__stderr__
    with contextlib.ExitStack() as stack:
        if stderr and stderr is sys.stderr:
            said = text_to(Output(os.dup(2), "w"), stderr.encoding, "backslashreplace")
            stack.enter_context(contextlib.redirect_stderr(stack.enter_context(said)))
        if stdout and stdout is sys.stdout:
            printed = Output(os.dup(1), "w")
            # What the terminal has no sign for, or half of one in a name, is a question mark.
            text = text_to(printed, stdout.encoding, "replace")
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(text)))
        yield printed


def text_to(raw: Output, encoding: str, errors: str) -> TextIO:
    """Return a file of text over an output, flushed at each end of a line."""
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors, line_buffering=True)
