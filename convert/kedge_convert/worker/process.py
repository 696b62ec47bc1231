"""Start one worker process, read its messages, limit its memory and time, end it."""

import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from time import monotonic

from kedge_convert.staging import remove_files_of
from kedge_convert.worker.progress import Event, PartStarted
from kedge_convert.worker.worker import Finished, Message, WorkerRequest, run
from kedge_runtime.blas import one_blas_thread
from kedge_runtime.checks.hardware import Machine
from kedge_runtime.errors import UsageError

# A share that leaves room for other programs.
MEMORY = "80%"
TIME = "2h"

HERE = Machine()
BYTES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
SECONDS = {"s": 1, "m": 60, "h": 3600}
HELD = re.compile(r"^(?:RssAnon|RssShmem|VmSwap):\s+(\d+) kB", re.MULTILINE)
HIGHEST = re.compile(r"^VmHWM:\s+(\d+) kB", re.MULTILINE)


@dataclass(frozen=True)
class Bounds:
    """`memory`: bytes of all the worker's processes; `seconds`: for one part. None: no limit."""

    memory: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class ProcessLimits:
    """The user's limits as words: a share of memory depends on the machine that does the work.

    Raises UsageError for words that it can't read.
    """

    memory: str = MEMORY
    time: str = TIME

    def __post_init__(self) -> None:
        """Refuse wrong words before any work."""
        self.bounds()

    def bounds(self) -> Bounds:
        """Return the limits on this machine, now."""
        return Bounds(read_memory(self.memory), read_time(self.time))


def read_memory(text: str, machine: Machine = HERE) -> int | None:
    """Return the bytes of `8G`, `500M`, `80%` (of what is free now), or None for `none`.

    G is 10^9. A share is None where the free memory is unknown. Raises UsageError.
    """
    if text == "none":
        return None
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]+)?)([KMGT%]?)B?", text.strip(), re.IGNORECASE)
    number = float(match[1]) if match else 0.0
    if not match or not number or (match[2] == "%" and number > 100):
        raise UsageError(f"--memory-limit: got {text!r}, allowed are e.g. 8G, 500M, 80%, none")
    if match[2] != "%":
        return int(number * BYTES[match[2].upper()])
    free = free_memory(machine)
    return None if free is None else int(free * number / 100)


def read_time(text: str) -> float | None:
    """Return the seconds of `90s`, `30m`, `2h`, or None for `none`. Raises UsageError."""
    if text == "none":
        return None
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]+)?)([smh])", text.strip())
    if not match or not float(match[1]):
        raise UsageError(f"--time-limit: got {text!r}, allowed are e.g. 90s, 30m, 2h, none")
    return float(match[1]) * SECONDS[match[2]]


def free_memory(machine: Machine = HERE) -> int | None:
    """Return the bytes still free: the machine's, or its control group's if fewer."""
    free = [*_available(machine), *_groups(machine)]
    return min(free) if free else None


def _available(machine: Machine) -> Iterator[int]:
    match = re.search(r"^MemAvailable:\s+(\d+) kB", machine.read("proc/meminfo"), re.MULTILINE)
    if match:
        yield int(match[1]) << 10


# Names in the two versions: the limit, the usage, and the droppable files in it.
VERSIONS = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def _groups(machine: Machine) -> Iterator[int]:
    """Yield the free bytes of every control group around this process.

    https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files, and cgroup-v1/memory.
    """
    for line in machine.read("proc/self/cgroup").splitlines():
        _, kind, path = line.split(":", 2)
        if kind not in VERSIONS:
            continue
        # In a container the path may be the host's, while the files lie at the root.
        for group in (Path(path), *Path(path).parents):
            folder = Path("sys/fs/cgroup", kind, *group.parts[1:])
            yield from _left(machine, folder, *VERSIONS[kind])


def _left(machine: Machine, folder: Path, limit: str, usage: str, files: str) -> Iterator[int]:
    most, used = (machine.read(str(folder / name)) for name in (limit, usage))
    if most.isdigit() and used.isdigit():
        match = re.search(rf"^{files} (\d+)", machine.read(str(folder / "memory.stat")), re.M)
        yield max(0, int(most) - int(used) + int(match[1] if match else 0))


def held(pid: int) -> int:
    """Return the bytes that a process and its descendants hold; 0 without /proc."""
    return sum(_kilobytes(one, HELD) for one in family(pid)) << 10


def highest(pid: int) -> dict[int, int]:
    """Return the peak resident bytes by process, mapped files included."""
    return {one: _kilobytes(one, HIGHEST) << 10 for one in family(pid)}


def family(pid: int) -> Iterator[int]:
    """Yield a process and its descendants."""
    yield pid
    for thread in HERE.find(f"proc/{pid}/task/*/children"):
        for child in HERE.read(str(thread)).split():
            yield from family(int(child))


def _kilobytes(pid: int, pattern: re.Pattern[str]) -> int:
    return sum(map(int, pattern.findall(HERE.read(f"proc/{pid}/status"))))


# A page fault takes half a microsecond: in this many seconds not much more than 0.4 GB is filled.
INTERVAL = 0.05
PATIENCE = 2.0  # seconds for a dying worker to write its stack
LONGEST = 1 << 20  # bytes of a worker's log that are kept, the last ones

Received = Event | Message


class WorkerDiedError(Exception):
    """The worker process died or was ended; the message says why."""


class Log(threading.Thread):
    """Collects a worker's output through a pipe: so a full disk doesn't stop the work."""

    def __init__(self, pipe: Connection) -> None:
        """Start to read."""
        super().__init__(daemon=True)
        self._pipe = pipe
        self._written = b""
        self.start()

    def run(self) -> None:
        """Read until all writers have ended."""
        while more := os.read(self._pipe.fileno(), 1 << 16):
            self._written = (self._written + more)[-LONGEST:]

    def read(self) -> bytes:
        """Return the end of the output, once the worker has ended."""
        self.join(PATIENCE)
        return self._written


@dataclass(frozen=True)
class WorkerProcess:
    """A running worker, the connection to it, and its log."""

    process: SpawnProcess
    line: Connection
    log: Log

    @property
    def pid(self) -> int:
        """Its number, which its hidden files bear."""
        return self.process.pid or 0

    def messages(self, bounds: Bounds) -> Iterator[Received]:
        """Yield its messages until it is finished. Raises WorkerDiedError when it ends before."""
        since = None
        while True:
            for message in self._receive():
                if isinstance(message, Finished):
                    return
                since = monotonic() if isinstance(message, PartStarted) else since or monotonic()
                yield message
            self._enforce(bounds, monotonic() - since if since else 0.0)

    def _receive(self) -> Iterator[Received | Finished]:
        """Yield the next message, if there is one within the interval."""
        over = self.process.exitcode is not None
        try:
            if self.line.poll(0 if over else INTERVAL):
                yield self.line.recv()
            elif over:
                raise EOFError
        except (EOFError, OSError):
            raise WorkerDiedError(self._cause()) from None

    def _cause(self) -> str:
        self.process.join(PATIENCE)
        code = self.process.exitcode
        if code == -signal.SIGKILL:
            return "the process was killed (SIGKILL), maybe by the system for lack of memory"
        if code is not None and code < 0:
            return f"the process crashed ({signal.Signals(-code).name})"
        return f"the process ended by itself (exit code {code})"

    def _enforce(self, bounds: Bounds, seconds: float) -> None:
        memory = held(self.pid) if bounds.memory else 0
        if bounds.memory and memory > bounds.memory:
            limit = f"--memory-limit is {bounds.memory / 1e9:.2f} GB"
            self._abort(f"out of memory: it took {memory / 1e9:.2f} GB, {limit}")
        if bounds.seconds and seconds > bounds.seconds:
            self._abort(f"out of time: --time-limit is {bounds.seconds:g} s")

    def _abort(self, reason: str) -> None:
        """End it by a signal at which it writes its stack to the log."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGABRT)
        self.process.join(PATIENCE)
        raise WorkerDiedError(reason)

    def end(self) -> None:
        """Kill it and its descendants, and wait for it."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()
        self.line.close()


# The worker's variables; None unsets one. It runs models of strangers, and must not know the key.
# tf2onnx walks sets of names, and files must be reproducible.
ENVIRONMENT: dict[str, str | None] = {"PYTHONHASHSEED": "0", "KEDGE_CACHE_KEY": None}
# TensorFlow maps and frees an activation at a time, 4 KB a page fault: a fifth of a conversion's
# CPU time. glibc from 2.35 on asks the kernel for pages of 2 MB.
TUNABLES, HUGE_PAGES = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"


@contextmanager
def _environment() -> Iterator[None]:
    """Set the worker's environment for a block that starts a process."""
    own = os.environ.get(TUNABLES)  # the last of equal names counts
    variables = {**ENVIRONMENT, TUNABLES: f"{HUGE_PAGES}:{own}" if own else HUGE_PAGES}
    before = {name: os.environ.get(name) for name in variables}
    _set(variables)
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
def started(request: WorkerRequest) -> Iterator[WorkerProcess]:
    """Yield a worker that runs a request; neither it nor its hidden files outlive the block."""
    context = get_context("spawn")
    ours, its = context.Pipe()
    reads, writes = context.Pipe(duplex=False)
    process = context.Process(target=run, args=(its, writes, request), name="kedge-worker")
    # Rounding alternates with other work, and the threads of OpenBLAS spin in between. With one its
    # sums don't depend on the number of cores, either.
    with _environment(), one_blas_thread():
        process.start()
    for end in (its, writes):
        end.close()  # so that the pipes close when the worker ends
    worker = WorkerProcess(process, ours, Log(reads))
    try:
        yield worker
    finally:
        worker.end()
        remove_files_of(request.job.out, worker.pid)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Clean up, as after Ctrl-C, when the terminal is closed or `timeout` ends the command."""
    before = {
        number: signal.signal(number, lambda number, _: sys.exit(128 + number))
        for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
