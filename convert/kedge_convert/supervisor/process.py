"""One worker process as its parent sees it: started, listened to, kept within bounds, ended."""

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from time import monotonic

from kedge_convert.progress.events import Event, Turned
from kedge_convert.staging import sweep
from kedge_convert.supervisor.bounds import Bounds, held
from kedge_convert.supervisor.worker import Finished, Message, Orders, run

# A page fault takes half a microsecond: in this many seconds not much more than 0.4 GB is filled.
INTERVAL = 0.05
PATIENCE = 2.0  # seconds to write down where it stood
LONGEST = 1 << 20  # bytes of a worker's log that are kept, the last ones

Heard = Event | Message


class DiedError(Exception):
    """The worker is no more, or had to be ended; the message says why."""


class Log(threading.Thread):
    """Takes in what a worker writes. It goes through a pipe: a full disk doesn't stop the work."""

    def __init__(self, pipe: Connection) -> None:
        """Begin to read."""
        super().__init__(daemon=True)
        self._pipe = pipe
        self._written = b""
        self.start()

    def run(self) -> None:
        """Read until all that write are gone."""
        while more := os.read(self._pipe.fileno(), 1 << 16):
            self._written = (self._written + more)[-LONGEST:]

    def read(self) -> bytes:
        """Return the last that was written, once the worker has ended."""
        self.join(PATIENCE)
        return self._written


@dataclass(frozen=True)
class Process:
    """A running worker, the line to it, and its log."""

    process: SpawnProcess
    line: Connection
    log: Log

    @property
    def pid(self) -> int:
        """Its number; its hidden files are named by it."""
        return self.process.pid or 0

    def messages(self, bounds: Bounds) -> Iterator[Heard]:
        """Yield what it sends until it is finished. Raises DiedError when it ends before."""
        since = None
        while True:
            for message in self._heard():
                if isinstance(message, Finished):
                    return
                since = monotonic() if isinstance(message, Turned) else since or monotonic()
                yield message
            self._hold_to(bounds, monotonic() - since if since else 0.0)

    def _heard(self) -> Iterator[Heard | Finished]:
        """Yield the next message, if there is one within the interval."""
        over = self.process.exitcode is not None
        try:
            if self.line.poll(0 if over else INTERVAL):
                yield self.line.recv()
            elif over:
                raise EOFError
        except (EOFError, OSError):
            raise DiedError(self._cause()) from None

    def _cause(self) -> str:
        self.process.join(PATIENCE)
        code = self.process.exitcode
        if code == -signal.SIGKILL:
            return "the process was killed (SIGKILL), maybe by the system for want of memory"
        if code is not None and code < 0:
            return f"the process crashed ({signal.Signals(-code).name})"
        return f"the process ended by itself (exit code {code})"

    def _hold_to(self, bounds: Bounds, seconds: float) -> None:
        memory = held(self.pid) if bounds.memory else 0
        if bounds.memory and memory > bounds.memory:
            limit = f"--memory-limit is {bounds.memory / 1e9:.2f} GB"
            self._break_off(f"out of memory: it took {memory / 1e9:.2f} GB, {limit}")
        if bounds.seconds and seconds > bounds.seconds:
            self._break_off(f"out of time: --time-limit is {bounds.seconds:g} s")

    def _break_off(self, reason: str) -> None:
        """End it by a signal at which it writes down where it stands."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGABRT)
        self.process.join(PATIENCE)
        raise DiedError(reason)

    def end(self) -> None:
        """Kill it and its descendants, and wait for it."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()
        self.line.close()


# What the worker starts with, and what it must not know: it runs models of strangers. None: unset.
# tf2onnx walks sets of names, and files must repeat.
ENVIRONMENT: dict[str, str | None] = {"PYTHONHASHSEED": "0", "KEDGE_CACHE_KEY": None}


@contextmanager
def _environment() -> Iterator[None]:
    """Run a block, which starts a process, in the worker's environment."""
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    _set(ENVIRONMENT)
    try:
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def started(orders: Orders) -> Iterator[Process]:
    """Yield a worker at its orders; neither it nor its hidden files outlive the block."""
    context = get_context("spawn")
    ours, its = context.Pipe()
    reads, writes = context.Pipe(duplex=False)
    process = context.Process(target=run, args=(its, writes, orders), name="kedge-worker")
    with _environment():
        process.start()
    for end in (its, writes):
        end.close()  # so that the worker's end is heard
    worker = Process(process, ours, Log(reads))
    try:
        yield worker
    finally:
        worker.end()
        sweep(orders.job.out, worker.pid)
