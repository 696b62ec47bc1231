"""Silence for libraries that write to the process's own stdout and stderr.

LiteRT announces its delegate, TensorFlow its whole start-up; neither goes through Python's streams,
so the file descriptors are turned away for as long as such a library talks. Keras does print, and
in a notebook or a test Python's streams are other files than the process's own: both are silenced.
"""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

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
    from kedge_runtime.output import speaker  # click's: a Classifier alone does without

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
