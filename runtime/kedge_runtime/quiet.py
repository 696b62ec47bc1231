"""Silence for libraries that write to the process's own stdout and stderr.

LiteRT announces its delegate, TensorFlow its whole start-up; neither goes through Python's streams,
so the file descriptors are turned away for as long as such a library talks.
"""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Send the process's stdout and stderr to nowhere while a framework talks."""
    sys.stdout.flush()
    saved = os.dup(1), os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        with warnings.catch_warnings():
            # Deprecations between the frameworks are theirs to mend, not the user's.
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.stdout.flush()
        for descriptor, original in enumerate(saved, start=1):
            os.dup2(original, descriptor)
        for descriptor in (*saved, nowhere):
            os.close(descriptor)
