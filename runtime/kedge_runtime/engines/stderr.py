"""Leave lines of a library out of the process's stderr, where the library has no setting for it."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

# Two threads that redirect at once would leave stderr redirected.
_LOCK = threading.Lock()


@contextmanager
def without(*lines: bytes) -> Iterator[None]:
    """Hold back what the process writes to stderr, and write all but `lines` of it at the end.

    `lines`: whole ones, with their newline. The others are written if the block raises, too.
    """
    with _LOCK:
        try:
            stderr = os.dup(2)
        except OSError:  # closed, as in a service: nobody reads it
            yield
            return
        with os.fdopen(stderr, "wb", buffering=0) as real, _scratch() as held:
            os.dup2(held.fileno(), 2)
            try:
                yield
            finally:
                os.dup2(stderr, 2)
                held.seek(0)
                with suppress(OSError):  # a closed pipe
                    real.writelines(line for line in held if line not in lines)


def _scratch() -> IO[bytes]:
    """Return a file without a name: in memory where the system can, as disks may be read-only."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("stderr"), "w+b")
    from tempfile import TemporaryFile  # not needed on Linux

    return TemporaryFile()
