"""Turn each type of error into one line on stderr and one exit code.

Any other error is a bug in kedge: exit code 70 (EX_SOFTWARE of sysexits.h). Exit code 1 means that
a gate failed. With -v or KEDGE_DEBUG=1 the traceback comes before the line.
"""

import contextlib
import errno
import os
import sys
import threading
from collections.abc import Callable, Iterator

import click

from kedge_runtime.errors import KedgeError, UsageError, install, reason_of
from kedge_runtime.output import UnreadError, say
from kedge_runtime.terminal import VERBOSITY

USAGE, INTERRUPTED, BUG = 2, 130, 70
DEBUG = "KEDGE_DEBUG"
# Import name -> package; all others belong to the converter.
DEVICE = {"numpy": "numpy", "cv2": "opencv-python-headless", "tomli": "tomli"}


# Errors of the system about a file that only the user can correct.
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


# Command and an option that others have -> its own option for that; click goes by the letters.
MEANT = {("drift", "--labels"): "--truth"}


class BugError(Exception):
    """Carries an unforeseen error, its cause, past click."""


def exit_code(error: Exception) -> int:
    """Print one line about an error on stderr; return the exit code."""
    types = (kind for kind in HANDLERS if isinstance(error, kind))
    return HANDLERS[next(types)](error)


def _help(error: Exception) -> int:
    """Show the help, as kedge was called without a command."""
    if isinstance(error, click.ClickException):
        error.show()
    return USAGE


def _usage(error: Exception) -> int:
    if not isinstance(error, KedgeError):
        say(_click_message(error) if isinstance(error, click.ClickException) else error)
        return USAGE
    say(str(error).removesuffix(error.run).rstrip(), run=error.run)
    return error.exit_code


def _click_message(error: click.ClickException) -> str:
    """Return click's message about a usage error, its suggestion, and where to find help."""
    text = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    option = getattr(error, "option_name", "")
    if context and (meant := MEANT.get((context.info_name, option))):
        text = f"No such option {option!r}. Did you mean {meant!r}?"
    return f"{text} (see {context.command_path} --help)" if context else text


def _missing(error: Exception) -> int:
    """Report a missing package; a missing module of kedge is a bug."""
    name, within, _ = (getattr(error, "name", None) or "kedge.").partition(".")
    if name.startswith("kedge") and within:
        return _bug(error)
    if name in DEVICE:
        return _usage(UsageError(f"{name} isn't installed: pip install {DEVICE[name]}"))
    return _usage(
        UsageError(f"{name} isn't installed: this is the device install; {install('convert')}")
    )


def _unloadable(error: Exception) -> int:
    """Report an installed library that can't be loaded; other failures are bugs."""
    name = getattr(error, "name", None)
    if name not in DEVICE:
        return _bug(error)
    fix = f"pip install --force-reinstall {DEVICE[name]}"
    return _usage(UsageError(f"{name} can't be loaded ({error}): free memory, or {fix}"))


def _bug(error: Exception) -> int:
    report_bug(error)
    return BUG


def _outside_click(error: Exception) -> int:
    """Report an error of the system about a file; any other error is a bug."""
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.filename is not None and cause.errno in REFUSALS:
        _trace(cause)
        return _usage(UsageError(f"{os.fsdecode(cause.filename)}: {reason_of(cause)}"))
    report_bug(cause or error)
    return BUG


def _trace(error: BaseException) -> None:
    if VERBOSITY.verbose or os.environ.get(DEBUG, "0") not in ("", "0"):
        from traceback import print_exception

        print_exception(error)


def report_bug(error: BaseException) -> None:
    """Report an error as a bug in kedge; with -v or KEDGE_DEBUG=1 its traceback comes first."""
    _trace(error)
    text = str(error).strip()
    if "Traceback (most recent call last)" in text:  # of a worker process
        text = text.splitlines()[-1]
    reason = ": ".join(filter(None, [type(error).__name__, " ".join(text.split())]))
    say(f"internal error: {reason}; this is a bug in kedge: run again with -v for the traceback")


@contextlib.contextmanager
def thread_errors_in_one_line() -> Iterator[None]:
    """Report errors that end a thread, or that can't be caught, in one line too."""
    hooks = threading.excepthook, sys.unraisablehook
    threading.excepthook = lambda ended: report_bug(ended.exc_value or ended.exc_type())
    sys.unraisablehook = lambda ended: report_bug(ended.exc_value or ended.exc_type())
    try:
        yield
    finally:
        threading.excepthook, sys.unraisablehook = hooks


# The first type that fits handles the error. NoArgsIsHelpError exists since click 8.2; older
# versions show the help themselves.
HANDLERS: dict[type[Exception], Callable[[Exception], int]] = {
    UnreadError: lambda _: 0,
    getattr(click.exceptions, "NoArgsIsHelpError", UnreadError): _help,
    click.ClickException: _usage,
    KedgeError: _usage,
    click.Abort: lambda _: INTERRUPTED,
    ModuleNotFoundError: _missing,
    ImportError: _unloadable,
    BugError: _outside_click,
    Exception: _bug,
}
