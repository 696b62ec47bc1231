"""An engine in a process of its own, under a memory and a time bound: a twin of the others.

A model that ends its engine, or never ends, costs that process and one line.
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

MEMORY = 400 << 20  # bytes beside the model: the check lets 320 MB of activations pass
COPIES = 3  # of the weights: the bytes, what LiteRT copies, what XNNPACK packs
STACK = 16 << 20  # bytes that a thread may take
START = 60.0  # seconds for Python and the engine's library, from a slow card
LEAST = 6.0  # seconds for any run, and for opening
# Multiplications a second that the slowest boards make; reference kernels are for proof, not speed.
RATES = {"default": 200e6, "builtin": 100e6, "reference": 20e6}
LOADED = 5 << 20  # bytes of a model a second, opened

_CODE = (
    "import sys; sys.path[:] = {path!r}; "
    "from kedge_runtime.engines.isolated_child import serve; serve({parent})"
)


class FaultError(Exception):
    """What the engine's library raised in its process."""


class Isolated(Engine):
    """One process with one model. Its steps are those of the engine in it."""

    faults = (FaultError,)

    def __init__(self, child: "Child", name: str, told: dict[str, Any], seconds: float) -> None:
        """Take a process whose model is open, and what it told of it."""
        super().__init__(_port(told["input"]), _port(told["output"]))
        self.name, self.library = name, str(told["library"])
        self.batches, self.note = bool(told["batches"]), str(told["note"])[:500]
        self._child, self._seconds = child, seconds
        self._rows = 1

    def set(self, tensors: Array) -> None:
        """Send the inputs."""
        self._rows = max(1, len(tensors) if tensors.ndim else 1)
        head = {"step": "set", "dtype": tensors.dtype.name, "shape": list(tensors.shape)}
        self._step(head, np.ascontiguousarray(tensors).tobytes())

    def invoke(self) -> None:
        """Run the network there."""
        self._step({"step": "invoke"})

    def get(self) -> Array:
        """Fetch the output."""
        head, body = self._step({"step": "get"})
        try:
            return np.frombuffer(body, np.dtype(head["dtype"])).reshape(head["shape"]).copy()
        except (KeyError, TypeError, ValueError):
            raise self._child.died("it answered nonsense") from None

    def _step(self, head: dict[str, Any], body: bytes = b"") -> tuple[dict[str, Any], bytes]:
        # Four times what the file states: an output of open sides is larger than its port says.
        most = 4 * self._rows * max(1 << 20, 8 * int(np.prod(self.output_shape)))
        found = self._child.ask(head, body, most, self._seconds * self._rows)
        if "fault" in found[0]:
            raise FaultError(str(found[0]["fault"])[:500])
        return found


class Child:
    """The process. It ends with this object, and with the parent whatever ends that."""

    def __init__(self, content: ModelContent, bound: int) -> None:
        """Start it; `bound`: the bytes that it may take."""
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
        """Return the answer. Raises DiedError where the process ended, hung or ran out of memory,
        EngineError for what the engine says against the model.
        """
        try:
            with suppress(BrokenPipeError):  # its last words may say why
                send(self._descriptor(self.process.stdin), head, body)
            found = receive(self._descriptor(self.process.stdout), most, seconds)
        except ChildLostError as lost:
            raise self.died(f"it took more than {seconds:.0f} s" if lost.late else "") from None
        except ValueError:
            raise self.died("it answered nonsense") from None
        except BaseException:
            self.end()  # Ctrl-C: half a message is no beginning for another
            raise
        if "memory" in found[0]:
            raise self.died(self._memory())
        if "error" in found[0]:
            self.end()
            raise EngineError(str(found[0]["error"])[:1000])
        return found

    def died(self, reason: str) -> DiedError:
        """Return the error of a process that ended by itself, or is ended here for a reason."""
        if not reason:
            try:
                code = self.process.wait(1)
            except subprocess.TimeoutExpired:
                code = 0
            reason = how_it_died(code)
            if code == -signal.SIGABRT:
                reason += f", perhaps as {self._memory()}"
        self.end()
        return DiedError(died(self.path, reason))

    def _memory(self) -> str:
        return f"it took more than {self.bound >> 20} MB"

    def _descriptor(self, pipe: Any) -> int:
        if pipe is None or pipe.closed:
            raise ChildLostError
        return int(pipe.fileno())


def died(path: Path, reason: str) -> str:
    """Return the one line on an engine that took its process with it."""
    return f"{path}: the engine died ({reason}): broken or hostile file"


def how_it_died(code: int) -> str:
    """Return a process's end in words: a signal's name, or its exit code."""
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
    """Load a model in a process of its own. Raises EngineError, DiedError among them."""
    name = engine_for(content.format, options)
    bound = MEMORY + COPIES * len(content.data) + STACK * options.thread_count
    child = Child(content, bound)
    said = asdict(replace(options, isolate=False))
    child.ask({"options": said, "engine": name}, b"", 0, START)
    head = {"path": str(content.path), "format": content.format, "memory": bound}
    opening = LEAST + len(content.data) / LOADED
    told, _ = child.ask(head, content.data, 0, opening)
    try:
        return Isolated(child, name, told, LEAST + cost.work / RATES[options.kernels])
    except (KeyError, TypeError, ValueError):
        raise child.died("it answered nonsense") from None


def _port(told: dict[str, Any]) -> Port:
    tensor = dict(told["tensor"])
    quantisation = tensor.pop("quantisation")
    scale = None if quantisation is None else Quantisation(**quantisation)
    shape = tuple(int(side) for side in told["shape"])
    return Port(shape, Tensor(**tensor, quantisation=scale), bool(told["fixed"]))
