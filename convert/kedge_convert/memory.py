"""Hold less memory: give freed memory back to the system, keep long bytes on the disk."""

import ctypes
import gc
import tempfile
from contextlib import suppress
from weakref import finalize

LONG = 256 << 20  # bytes that lie on the disk while nobody needs them


def give_back() -> None:
    """Return to the system what glibc keeps for later: after TensorFlow's work, 150 MB and more.

    Graphs of TensorFlow go first, which refer to themselves.
    """
    gc.collect()
    trim()


def trim() -> None:
    """Return free pages of the heap. Other C libraries have no such function: nothing is done."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


# glibc's `mallopt`: blocks of so many bytes are mapped by themselves, and go back when freed.
# Its own threshold grows to 32 MiB, and activations of many layers have 10 to 30. With half of it
# a conversion of MobileNetV2 takes 100 MB less at once.
_MMAP_THRESHOLD, MAPPED = -3, 16 << 20
# Free bytes at the heap's end that stay: a threshold of one's own would leave 128 KB of them, and
# the same pages would come and go.
_TRIM_THRESHOLD, KEPT = -1, 32 << 20


def map_large_blocks() -> None:
    """Have blocks of MAPPED bytes mapped by themselves from now on; glibc alone can do it."""
    with suppress(AttributeError, OSError):
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, MAPPED)
        library.mallopt(_TRIM_THRESHOLD, KEPT)


class StoredBytes:
    """Bytes that are needed again later: long ones lie in a file, if the disk takes them."""

    def __init__(self, content: bytes) -> None:
        """Store them. The file has no name, and ends with this object or its process."""
        self._content, self._file = content, None
        if len(content) < LONG:
            return
        with suppress(OSError):
            file = tempfile.TemporaryFile()  # noqa: SIM115  # it ends with this object
            file.write(content)
            file.flush()
            self._content, self._file = b"", file
            finalize(self, file.close)

    def read(self) -> bytes:
        """Return them."""
        if self._file is None:
            return self._content
        self._file.seek(0)
        return self._file.read()
