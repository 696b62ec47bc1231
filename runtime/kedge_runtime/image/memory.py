"""Bound the memory of the images that several threads decode at once.

Together they take no more than one image may (`decode.MAX_MEMORY`): a board has no more to give.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_here = threading.local()


class DecodeMemory:
    """Bytes that threads share: who needs more than is free waits for the others."""

    def __init__(self, most: int) -> None:
        """Start with `most` free bytes."""
        self._most = self._free = most
        self._changed = threading.Condition()

    @contextmanager
    def one_image(self) -> Iterator[None]:
        """Run a block that prepares one image; what `reserve` took in it is free at its end.

        Within another such block of the same thread the outer one counts.
        """
        if getattr(_here, "budget", None):
            yield
            return
        _here.budget, _here.taken = self, 0
        try:
            yield
        finally:
            self._take(-_here.taken)
            del _here.budget, _here.taken

    def reserve(self, amount: int) -> None:
        """Wait until so many bytes are free, or all are, and take them."""
        amount = min(amount, self._most) - _here.taken
        if amount > 0:
            self._take(amount)
            _here.taken += amount

    def _take(self, amount: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: amount <= self._free)
            self._free -= amount
            self._changed.notify_all()


def reserve(amount: int) -> None:
    """Reserve memory for decoding, where this thread prepares images beside others."""
    budget: DecodeMemory | None = getattr(_here, "budget", None)
    if budget is not None:
        budget.reserve(amount)
