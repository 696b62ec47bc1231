"""Give freed memory back to the system."""

import ctypes
from contextlib import suppress


def give_back() -> None:
    """Return to the system what glibc keeps for later: after TensorFlow's work, 150 MB and more.

    Other C libraries have no such function, and nothing is done.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
