"""Messages between kedge and an engine in a process of its own: a JSON object and raw bytes.

Nothing is unpickled: a broken or hostile model may have taken the process that answers.
"""

import json
import os
import select
import struct
import time
from typing import Any

_SIZES = struct.Struct("<IQ")
MAX_HEAD = 1 << 16
_CHUNK = 1 << 20


class LostError(Exception):
    """Nobody answers any more; `late`: because the time was up."""

    def __init__(self, late: bool = False) -> None:
        """Take the reason."""
        super().__init__("late" if late else "closed")
        self.late = late


def send(descriptor: int, head: dict[str, Any], body: bytes | memoryview = b"") -> None:
    """Write a message. Raises BrokenPipeError when nobody reads."""
    text = json.dumps(head).encode()
    _write(descriptor, memoryview(_SIZES.pack(len(text), len(body)) + text))
    _write(descriptor, memoryview(body))


def _write(descriptor: int, content: memoryview) -> None:
    while len(content):
        content = content[os.write(descriptor, content[:_CHUNK]) :]


def receive(
    descriptor: int, most: int, seconds: float | None = None
) -> tuple[dict[str, Any], bytes]:
    """Read a message whose bytes are at most so many, within so many seconds (None: any time).

    Raises LostError when the other end is closed or late, ValueError for what is no message.
    """
    end = None if seconds is None else time.monotonic() + seconds
    head, body = _SIZES.unpack(_read(descriptor, _SIZES.size, end))
    if head > MAX_HEAD or body > most:
        raise ValueError(f"a message of {head} and {body} bytes")
    found = json.loads(_read(descriptor, head, end))
    if not isinstance(found, dict):
        raise ValueError("a message that is no object")
    return found, _read(descriptor, body, end)


def _read(descriptor: int, size: int, end: float | None) -> bytes:
    parts, left = [], size
    # select knows no descriptor above 1023, and a service may have thousands.
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    while left:
        if end is not None:
            room = max(0.0, end - time.monotonic())
            if not waiting.poll(room * 1000):
                raise LostError(late=True)
        part = os.read(descriptor, min(left, _CHUNK))
        if not part:
            raise LostError
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
