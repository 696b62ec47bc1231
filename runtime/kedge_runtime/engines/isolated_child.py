"""Serve one engine in a process of its own, by messages of JSON and raw bytes."""

import json
import os
import re
import select
import signal
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from kedge_runtime.arrays import Array
from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.engines.base import Engine, import_library
from kedge_runtime.engines.choice import ENGINES, EngineOptions
from kedge_runtime.errors import KedgeError, one_line

_SIZES = struct.Struct("<IQ")
MAX_HEAD = 1 << 16
_CHUNK = 1 << 20


class ChildLostError(Exception):
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
                raise ChildLostError(late=True)
        part = os.read(descriptor, min(left, _CHUNK))
        if not part:
            raise ChildLostError
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


MODEL_BYTES = 2 << 30  # the most that either format can have


def serve(parent: int) -> None:
    """Obey what comes on stdin until it ends; `parent`: a pipe that ends with the parent."""
    _prepare(parent)
    replies = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what libraries print is no reply
    with suppress(ChildLostError, BrokenPipeError):
        _serve(replies)


def _prepare(parent: int) -> None:
    """Leave Ctrl-C to the parent, and end with it even in the middle of a run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(ImportError, AttributeError, OSError):
        import fcntl

        # The kernel sends SIGIO, which ends this process, when the other end of the pipe closes.
        fcntl.fcntl(parent, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(parent, fcntl.F_SETFL, fcntl.fcntl(parent, fcntl.F_GETFL) | os.O_ASYNC)
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _serve(replies: int) -> None:
    order, _ = receive(0, 0)
    options, name = EngineOptions(**order["options"]), order["engine"]
    _reply(replies, lambda: import_library(name))
    order, data = receive(0, MODEL_BYTES)
    content = ModelContent(Path(order["path"]), order["format"], data)
    del data
    _limit(order["memory"])
    module = import_module(ENGINES[name].module)
    engine: Engine = _reply(replies, lambda: module.open_engine(content, options))
    while True:
        try:
            order, body = receive(0, MODEL_BYTES)
            _obey(replies, engine, order, body)
        except MemoryError:
            send(replies, {"memory": True})
            return


def _described(engine: Engine) -> dict[str, Any]:
    taken, given = engine.ports
    return {
        "input": asdict(taken),
        "output": asdict(given),
        "library": engine.library,
        "batches": engine.batches,
        "note": engine.note,
    }


def _obey(replies: int, engine: Engine, order: dict[str, Any], body: bytes) -> None:
    """Do one step of a run."""
    try:
        found = _STEPS[order["step"]](engine, order, body)
    except engine.faults as error:
        send(replies, {"fault": one_line(error)})
    else:
        head = {} if found is None else {"dtype": found.dtype.name, "shape": list(found.shape)}
        send(replies, head, b"" if found is None else found.tobytes())


def _set(engine: Engine, order: dict[str, Any], body: bytes) -> None:
    engine.set(np.frombuffer(body, order["dtype"]).reshape(order["shape"]))


def _get(engine: Engine, _: dict[str, Any], __: bytes) -> Array:
    return engine.get()


_STEPS: dict[str, Any] = {"set": _set, "invoke": lambda engine, *_: engine.invoke(), "get": _get}


def _reply(replies: int, task: Callable[[], Any]) -> Any:
    """Return what a task does; tell of an engine what it takes, and of a failure the reason."""
    try:
        found = task()
    except (KedgeError, MemoryError) as error:
        send(replies, {"memory": True} if isinstance(error, MemoryError) else {"error": str(error)})
        raise ChildLostError from None
    send(replies, _described(found) if isinstance(found, Engine) else {})
    return found


def _limit(more: int) -> None:
    """Bound the memory that this process may write to: what it has, and so many bytes."""
    try:
        import resource

        status = Path("/proc/self/status").read_text(encoding="utf-8")
        found = re.search(r"VmData:\s+(\d+) kB", status)
        bound = (int(found[1]) << 10) + more if found else resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))
    except (ImportError, OSError, ValueError):
        return  # a system without such bounds: docs/security.md says which
