"""Serve one engine in a worker process, by messages of JSON and raw bytes."""

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
    """The other process is gone; `late`: or did not reply in time."""

    def __init__(self, late: bool = False) -> None:
        """Keep the reason."""
        super().__init__("late" if late else "closed")
        self.late = late


def send(descriptor: int, head: dict[str, Any], body: bytes | memoryview = b"") -> None:
    """Write a message. Raises BrokenPipeError when the reader is gone."""
    text = json.dumps(head).encode()
    _write(descriptor, memoryview(_SIZES.pack(len(text), len(body)) + text))
    _write(descriptor, memoryview(body))


def _write(descriptor: int, content: memoryview) -> None:
    while len(content):
        content = content[os.write(descriptor, content[:_CHUNK]) :]


def receive(
    descriptor: int, most: int, seconds: float | None = None
) -> tuple[dict[str, Any], bytes]:
    """Read a message: a head, and a body of at most `most` bytes.

    `seconds`: the time limit, None for no limit. Raises ChildLostError when the other process is
    gone or late, ValueError for an invalid message.
    """
    end = None if seconds is None else time.monotonic() + seconds
    head, body = _SIZES.unpack(_read(descriptor, _SIZES.size, end))
    if head > MAX_HEAD or body > most:
        raise ValueError(f"a message of {head} and {body} bytes")
    content = json.loads(_read(descriptor, head, end))
    if not isinstance(content, dict):
        raise ValueError("a message that is no object")
    return content, _read(descriptor, body, end)


def _read(descriptor: int, size: int, end: float | None) -> bytes:
    parts, left = [], size
    # select allows no descriptor above 1023, and a service may have thousands.
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
    """Handle requests from stdin until it closes; `parent`: a pipe that closes with the parent."""
    _prepare(parent)
    replies = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # libraries print, too
    with suppress(ChildLostError, BrokenPipeError):
        _serve(replies)


def _prepare(parent: int) -> None:
    """Leave Ctrl-C to the parent, and end with the parent even during a run."""
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
    request, _ = receive(0, 0)
    options, name = EngineOptions(**request["options"]), request["engine"]
    _reply(replies, lambda: import_library(name))
    request, data = receive(0, MODEL_BYTES)
    content = ModelContent(Path(request["path"]), request["format"], data)
    del data
    _limit(request["memory"])
    module = import_module(ENGINES[name].module)
    engine: Engine = _reply(replies, lambda: module.open_engine(content, options))
    while True:
        try:
            request, body = receive(0, MODEL_BYTES)
            _step(replies, engine, request, body)
        except MemoryError:
            send(replies, {"memory": True})
            return


def _described(engine: Engine) -> dict[str, Any]:
    input_port, output_port = engine.ports
    return {
        "input": asdict(input_port),
        "output": asdict(output_port),
        "library": engine.library,
        "batches": engine.batches,
        "note": engine.note,
    }


def _step(replies: int, engine: Engine, request: dict[str, Any], body: bytes) -> None:
    """Run one step of the engine and send the result."""
    try:
        array = _STEPS[request["step"]](engine, request, body)
    except engine.faults as error:
        send(replies, {"fault": one_line(error)})
    else:
        head = {} if array is None else {"dtype": array.dtype.name, "shape": list(array.shape)}
        send(replies, head, b"" if array is None else array.tobytes())


def _set(engine: Engine, request: dict[str, Any], body: bytes) -> None:
    engine.set(np.frombuffer(body, request["dtype"]).reshape(request["shape"]))


def _get(engine: Engine, _: dict[str, Any], __: bytes) -> Array:
    return engine.get()


_STEPS: dict[str, Any] = {"set": _set, "invoke": lambda engine, *_: engine.invoke(), "get": _get}


def _reply(replies: int, task: Callable[[], Any]) -> Any:
    """Run a task, send its outcome, and return its result.

    An engine is sent as its description, a failure as its reason.
    """
    try:
        result = task()
    except (KedgeError, MemoryError) as error:
        send(replies, {"memory": True} if isinstance(error, MemoryError) else {"error": str(error)})
        raise ChildLostError from None
    send(replies, _described(result) if isinstance(result, Engine) else {})
    return result


def _limit(more: int) -> None:
    """Limit this process's writable memory to its present size and `more` bytes."""
    try:
        import resource

        status = Path("/proc/self/status").read_text(encoding="utf-8")
        match = re.search(r"VmData:\s+(\d+) kB", status)
        bound = (int(match[1]) << 10) + more if match else resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))
    except (ImportError, OSError, ValueError):
        return  # a system without such limits: see docs/security.md
