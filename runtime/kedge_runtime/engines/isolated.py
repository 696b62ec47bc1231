"""Run an engine in a worker process, under a memory and a time bound.

A model that crashes its engine, or never ends, costs that process and one line.
"""

import os
import signal
import subprocess
import sys
import weakref
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from kedge_runtime.arrays import Array
from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.artefact.contract import Quantisation, Tensor
from kedge_runtime.engines.base import Engine, Port
from kedge_runtime.engines.choice import EngineOptions, engine_for
from kedge_runtime.engines.isolated_child import ChildLostError, receive, send
from kedge_runtime.errors import DiedError, EngineError
from kedge_runtime.modelfile.check.tflite_shapes import Cost

MEMORY = 400 << 20  # bytes beside the model: the check allows 320 MB of activations
COPIES = 3  # of the weights: the file, LiteRT's copy, XNNPACK's packed ones
STACK = 16 << 20  # bytes that a thread may take
START = 60.0  # seconds for Python and the engine's library, from a slow card
LEAST = 6.0  # seconds that any run and any opening may take
# Multiplications per second of the slowest boards, by kernels.
RATES = {"default": 200e6, "builtin": 100e6, "reference": 20e6}
LOADED = 5 << 20  # bytes of a model that are opened per second

_CODE = (
    "import sys; sys.path[:] = {path!r}; "
    "from kedge_runtime.engines.isolated_child import serve; serve({parent})"
)


class FaultError(Exception):
    """An error of the engine's library in the worker process."""


class Isolated(Engine):
    """A worker process with one model; its steps are those of the engine in it."""

    faults = (FaultError,)

    def __init__(
        self, child: "Child", name: str, description: dict[str, Any], seconds: float
    ) -> None:
        """Take a process with an open model, its description, and a run's limit in seconds."""
        super().__init__(_port(description["input"]), _port(description["output"]))
        self.name, self.library = name, str(description["library"])
        self.batches, self.note = bool(description["batches"]), str(description["note"])[:500]
        self._child, self._seconds = child, seconds
        self._rows = 1

    def set(self, tensors: Array) -> None:
        """Send the inputs."""
        self._rows = max(1, len(tensors) if tensors.ndim else 1)
        head = {"step": "set", "dtype": tensors.dtype.name, "shape": list(tensors.shape)}
        self._step(head, np.ascontiguousarray(tensors).tobytes())

    def invoke(self) -> None:
        """Run the network in the worker process."""
        self._step({"step": "invoke"})

    def get(self) -> Array:
        """Fetch the output."""
        head, body = self._step({"step": "get"})
        try:
            return np.frombuffer(body, np.dtype(head["dtype"])).reshape(head["shape"]).copy()
        except (KeyError, TypeError, ValueError):
            raise self._child.died("it sent an invalid reply") from None

    def release(self) -> None:
        """End the worker process."""
        self._child.end()

    def _step(self, head: dict[str, Any], body: bytes = b"") -> tuple[dict[str, Any], bytes]:
        # Four times the stated size: an output with open sides is larger than its port states.
        most = 4 * self._rows * max(1 << 20, 8 * int(np.prod(self.output_shape)))
        reply = self._child.ask(head, body, most, self._seconds * self._rows)
        if "fault" in reply[0]:
            raise FaultError(str(reply[0]["fault"])[:500])
        return reply


class Child:
    """The worker process; it ends with this object, and with the parent even if that is killed."""

    def __init__(self, content: ModelContent, bound: int) -> None:
        """Start the process; `bound`: the bytes that it may allocate."""
        self.path, self.bound = content.path, bound
        reader, writer = os.pipe()
        try:
            code = _CODE.format(path=sys.path, parent=reader)
            self.process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                pass_fds=(reader,),
            )
        except OSError as error:
            os.close(writer)
            raise EngineError(f"{self.path}: no process for the engine: {error}") from None
        finally:
            os.close(reader)
        self.end = weakref.finalize(self, _end, self.process, writer)

    def ask(
        self, head: dict[str, Any], body: bytes, most: int, seconds: float
    ) -> tuple[dict[str, Any], bytes]:
        """Send a message and return the reply: its head and at most `most` bytes.

        Raises DiedError where the process ended, hung or ran out of memory, EngineError where the
        engine refuses the model.
        """
        try:
            with suppress(BrokenPipeError):  # its last reply may state the reason
                send(self._descriptor(self.process.stdin), head, body)
            reply = receive(self._descriptor(self.process.stdout), most, seconds)
        except ChildLostError as lost:
            raise self.died(f"it took more than {seconds:.0f} s" if lost.late else "") from None
        except ValueError:
            raise self.died("it sent an invalid reply") from None
        except BaseException:
            self.end()  # Ctrl-C: after half a message the process can't be used
            raise
        if "memory" in reply[0]:
            raise self.died(self._memory())
        if "error" in reply[0]:
            self.end()
            raise EngineError(str(reply[0]["error"])[:1000])
        return reply

    def died(self, reason: str) -> DiedError:
        """End the process and return its error; no reason: it ended by itself."""
        if not reason:
            try:
                code = self.process.wait(1)
            except subprocess.TimeoutExpired:
                code = 0
            reason = describe_exit(code)
            if code == -signal.SIGABRT:
                reason += f", perhaps as {self._memory()}"
        self.end()
        return DiedError(death_message(self.path, reason))

    def _memory(self) -> str:
        return f"it took more than {self.bound >> 20} MB"

    def _descriptor(self, pipe: Any) -> int:
        if pipe is None or pipe.closed:
            raise ChildLostError
        return int(pipe.fileno())


def death_message(path: Path, reason: str) -> str:
    """Return the message on an engine whose process died."""
    return f"{path}: the engine died ({reason}): broken or hostile file"


def describe_exit(code: int) -> str:
    """Return the signal's name or the exit code of a process that ended."""
    try:
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
    except ValueError:
        return f"signal {-code}"


def _end(process: subprocess.Popen[bytes], writer: int) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    os.close(writer)


def open_isolated(content: ModelContent, options: EngineOptions, cost: Cost) -> Isolated:
    """Load a model in a worker process. Raises EngineError, which includes DiedError."""
    name = engine_for(content.format, options)
    bound = MEMORY + COPIES * len(content.data) + STACK * options.thread_count
    child = Child(content, bound)
    settings = asdict(replace(options, isolate=False))
    child.ask({"options": settings, "engine": name}, b"", 0, START)
    head = {"path": str(content.path), "format": content.format, "memory": bound}
    opening = LEAST + len(content.data) / LOADED
    description, _ = child.ask(head, content.data, 0, opening)
    try:
        return Isolated(child, name, description, LEAST + cost.work / RATES[options.kernels])
    except (KeyError, TypeError, ValueError):
        raise child.died("it sent an invalid reply") from None


def _port(described: dict[str, Any]) -> Port:
    tensor = dict(described["tensor"])
    quantisation = tensor.pop("quantisation")
    scale = None if quantisation is None else Quantisation(**quantisation)
    shape = tuple(int(side) for side in described["shape"])
    return Port(shape, Tensor(**tensor, quantisation=scale), bool(described["fixed"]))
