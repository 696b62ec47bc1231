"""Compute SHA-256 of content in memory, of small content without OpenSSL.

`hashlib` loads OpenSSL, which takes 3.7 MB of memory and 8 ms of CPU time. Python has an
implementation of its own, too. Its module `random` leaves out OpenSSL in the same way.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

# Bytes. Where the processor has instructions for SHA, OpenSSL takes .7 ms for a megabyte, and
# Python's implementation 5 ms. So for large content the time counts more than the memory.
SMALL = 8 << 20
# Python 3.12 renamed the module. A build may lack it.
_OWN = ("_sha2", "_sha256")


def sha256(content: bytes | memoryview) -> "Hash":
    """Return the hash object of `hashlib.sha256`: `digest()` and `hexdigest()`."""
    if len(content) <= SMALL and "hashlib" not in sys.modules:
        for module in _OWN:
            try:
                own: Hash = import_module(module).sha256(content)
            except ImportError:
                continue
            return own
    import hashlib

    return hashlib.sha256(content)
