"""How a command ends: one line on stderr and one exit code for each kind of error.

What is not foreseen is a bug in kedge: exit code 70 (EX_SOFTWARE of sysexits.h), never 1, which
says that a gate failed. With KEDGE_DEBUG=1 the traceback comes before the line.
"""

import contextlib
import errno
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator

import click

from kedge_runtime.errors import KedgeError, UsageError, reason_of
from kedge_runtime.output import UnreadError, say

USAGE, INTERRUPTED, BUG = 2, 130, 70
DEBUG = "KEDGE_DEBUG"
# Import name -> what installs it; all others belong to the converter.
DEVICE = {"numpy": "numpy", "cv2": "opencv-python-headless", "tomli": "tomli"}


# What a system says of a file that no code of kedge could mend.
REFUSALS = frozenset(
    (
        errno.EACCES,
        errno.EPERM,
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.EROFS,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
    )
)


class BugError(Exception):
    """Carries an unforeseen error, its cause, past click."""


def exit_code(error: Exception) -> int:
    """Say in one line on stderr how the command ended; return its exit code."""
    kinds = (kind for kind in ENDS if isinstance(error, kind))
    return ENDS[next(kinds)](error)


def _help(error: Exception) -> int:
    """Show the help: kedge was called without a command."""
    if isinstance(error, click.ClickException):
        error.show()
    return USAGE


def _usage(error: Exception) -> int:
    say(_click_words(error) if isinstance(error, click.ClickException) else error)
    return error.exit_code if isinstance(error, KedgeError) else USAGE


def _click_words(error: click.ClickException) -> str:
    """Return click's own words on a usage error, with what it proposes, and where to read on."""
    said = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    return f"{said} (see {context.command_path} --help)" if context else said


def _missing(error: Exception) -> int:
    """Tell which package is missing; a module within kedge is a bug."""
    name, within, _ = (getattr(error, "name", None) or "kedge.").partition(".")
    if name.startswith("kedge") and within:
        return _bug(error)
    if name in DEVICE:
        return _usage(UsageError(f"{name} isn't installed: pip install {DEVICE[name]}"))
    return _usage(
        UsageError(
            f"{name} isn't installed: this is the device install; pip install './kedge[convert]'"
        )
    )


def _unloadable(error: Exception) -> int:
    """Tell of a library that is there, but lacks another one or memory; other failures are bugs."""
    name = getattr(error, "name", None)
    if name not in DEVICE:
        return _bug(error)
    cure = f"pip install --force-reinstall {DEVICE[name]}"
    return _usage(UsageError(f"{name} can't be loaded ({error}): free memory, or {cure}"))


def _bug(error: Exception) -> int:
    tell_bug(error)
    return BUG


def _past_click(error: Exception) -> int:
    """Tell what the system refuses the user; any other error is a bug."""
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.filename is not None and cause.errno in REFUSALS:
        _trace(cause)
        return _usage(UsageError(f"{os.fsdecode(cause.filename)}: {reason_of(cause)}"))
    tell_bug(cause or error)
    return BUG


def _trace(error: BaseException) -> None:
    if os.environ.get(DEBUG, "0") not in ("", "0"):
        traceback.print_exception(error)


def tell_bug(error: BaseException) -> None:
    """Say that an error is a bug in kedge; with KEDGE_DEBUG=1 its traceback comes first."""
    _trace(error)
    words = str(error).strip()
    if "Traceback (most recent call last)" in words:  # of a worker process
        words = words.splitlines()[-1]
    said = ": ".join(filter(None, [type(error).__name__, " ".join(words.split())]))
    say(
        f"internal error: {said}; this is a bug in kedge: run again with {DEBUG}=1 for the "
        "traceback"
    )


@contextlib.contextmanager
def threads_in_one_line() -> Iterator[None]:
    """Tell an error that ends a thread, or that nobody can catch, in one line, too."""
    hooks = threading.excepthook, sys.unraisablehook
    threading.excepthook = lambda ended: tell_bug(ended.exc_value or ended.exc_type())
    sys.unraisablehook = lambda ended: tell_bug(ended.exc_value or ended.exc_type())
    try:
        yield
    finally:
        threading.excepthook, sys.unraisablehook = hooks


# The first kind that fits says how the command ends. NoArgsIsHelpError is of click 8.2 and on;
# older ones show the help themselves.
ENDS: dict[type[Exception], Callable[[Exception], int]] = {
    UnreadError: lambda _: 0,
    getattr(click.exceptions, "NoArgsIsHelpError", UnreadError): _help,
    click.ClickException: _usage,
    KedgeError: _usage,
    click.Abort: lambda _: INTERRUPTED,
    ModuleNotFoundError: _missing,
    ImportError: _unloadable,
    BugError: _past_click,
    Exception: _bug,
}
