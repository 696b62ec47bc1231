"""Run tasks in this process, in worker processes, or on a Dask cluster.

All are `concurrent.futures` executors. A shared pool breaks as a whole when one process is lost,
and does not tell which task it ran. Here each submitting thread has a process of its own, so a lost
process costs one known task. That holds on a cluster, too: Dask would blame all tasks that the
worker had. Dask itself replaces lost workers. The cluster's machines see the same files under the
same paths.
"""

import ctypes
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib import import_module
from multiprocessing import active_children, current_process, get_context
from threading import local
from types import ModuleType
from typing import Any, ParamSpec, TypeVar
from uuid import uuid4

from kedge_runtime import __version__
from kedge_runtime.checks.hardware import identity
from kedge_runtime.errors import EngineError, LostError, UsageError, install
from kedge_runtime.frozen import dataclass
from kedge_runtime.output import say

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

# As many as Dask allows (its distributed.scheduler.allowed-failures).
ALLOWED_LOSSES = 3
# https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html
PR_SET_PDEATHSIG = 1

_own = local()


class Processes(Executor):
    """Gives each task to a thread, which runs it in its own process."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        """Take the threads, one for each process."""
        self._threads = threads

    def submit(
        self,
        task: Callable[Arguments, Result],
        /,
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Future[Result]:
        """Return the future of a task; its error is what the task raises, or LostError."""
        return self._threads.submit(in_own_process, partial(task, *arguments, **named))


@contextmanager
def process_executor(count: int) -> Iterator[Executor]:
    """Yield an executor of `count` worker processes."""
    with ThreadPoolExecutor(count, thread_name_prefix="kedge-jobs") as threads, ended_by_errors():
        try:
            yield Processes(threads)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


def in_own_process(task: Callable[[], Result], run: str = "") -> Result:
    """Run a task in this thread's own process; when that is lost, retry in a new one.

    `run`: tasks with the same value share a process, which caches the files that it has read.
    Raises what the task raises, and LostError when it has ended more processes than allowed.
    """
    for _ in range(1 + ALLOWED_LOSSES):
        if getattr(_own, "run", None) != run:
            _own.run, _own.process = run, process()
        try:
            result: Result = _own.process.submit(task).result()
        except BrokenProcessPool:
            del _own.run
        else:
            return result
    raise LostError(f"ended {1 + ALLOWED_LOSSES} processes (killed, crashed or out of memory)")


def process() -> ProcessPoolExecutor:
    """Return a new process that ends with this one; on Linux even if this one is killed."""
    return ProcessPoolExecutor(
        1, mp_context=get_context("spawn"), initializer=_begin, initargs=(os.getpid(),)
    )


@contextmanager
def ended_by_errors() -> Iterator[None]:
    """End the processes that the block started when an error or `sys.exit` leaves it.

    Ctrl-C reaches them directly.
    """
    before = set(active_children())
    try:
        yield
    except (Exception, SystemExit):
        for child in set(active_children()) - before:
            child.terminate()
        raise


def _begin(parent: int) -> None:
    """Make SIGTERM clean up as Ctrl-C does, and end this process with its parent."""
    end_with(parent)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def end_with(parent: int) -> None:
    """Let the system end this process with its parent, even if that is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


Versions = dict[str, str]
# The scheduler's message on a task that it can't unpickle.
_UNREAD = "Error during deserialization of the task graph"


class Cluster(Executor):
    """Dask's own executor, with kedge's errors for lost workers and clusters."""

    def __init__(self, client: Any) -> None:
        """Take a `distributed.Client`."""
        # Not pure: files are read, so equal calls may have different results.
        self._inner: Executor = client.get_executor(pure=False)
        self._versions, self._run = versions(), uuid4().hex

    def submit(
        self,
        task: Callable[Arguments, Result],
        /,
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Future[Result]:
        """Return the future of a task.

        Its error is what the task raises, LostError, or EngineError for a cluster that is gone.
        """
        future: Future[Result] = Future()
        call = partial(task, *arguments, **named)
        remote = self._inner.submit(_run, self._run, partial(_checked, self._versions, call))
        remote.add_done_callback(partial(_pass_on, future))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Drop unfinished tasks."""
        self._inner.shutdown(wait=False)


@contextmanager
def cluster_executor(address: str) -> Iterator[Executor]:
    """Yield the executor of a cluster. Raises UsageError when it can't be reached."""
    library = _distributed()
    # It logs tracebacks about a cluster that is gone; kedge raises one line instead.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    try:
        client = library.Client(address, set_as_default=False)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"--scheduler: {address}: can't be reached ({reason}); give e.g. tcp://HOST:8786"
        ) from None
    with client:
        if not client.nthreads():
            say(f"{address}: has no workers yet, waiting for one")
        with Cluster(client) as cluster:
            yield cluster


def _distributed() -> ModuleType:
    try:
        return import_module("distributed")
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--scheduler: {error.name} isn't installed: {install('distributed')}"
        ) from None


def versions() -> Versions:
    """Return the versions that must be equal on all machines, so that the results are."""
    machine = identity()
    return {"kedge": __version__, "python": machine["python"], **machine["packages"]}


def _run(run: str, task: Callable[[], Result]) -> Result:
    """Run a task on a worker, in a process of its own."""
    # Dask's nanny starts workers as daemons, which may have no processes of their own.
    current_process().daemon = False
    return in_own_process(task, run)


def _checked(expected: Versions, task: Callable[[], Result]) -> Result:
    """Run a task, in its process. Raises UsageError where a version differs."""
    present = versions()
    if present != expected:
        names = sorted(
            name for name in {*present, *expected} if present.get(name) != expected.get(name)
        )
        differ = ", ".join(f"{name} {present.get(name)} for {expected.get(name)}" for name in names)
        raise UsageError(f"--scheduler: a worker has {differ}: install the same on all machines")
    return task()


def _pass_on(future: Future[Result], remote: Future[Result]) -> None:
    """Pass the outcome of a remote task to the future, unless that was cancelled."""
    if not future.set_running_or_notify_cancel():
        return
    if remote.cancelled():
        message = "--scheduler: the cluster is gone; start it and run again"
        future.set_exception(EngineError(message))
    elif error := remote.exception():
        future.set_exception(_translated(error))
    else:
        future.set_result(remote.result())


def _translated(error: BaseException) -> BaseException:
    if isinstance(error, _distributed().scheduler.KilledWorker):
        return LostError(f"ended {error.allowed_failures + 1} workers of the cluster")
    if isinstance(error, ImportError) or _UNREAD in str(error):
        return UsageError(
            "--scheduler: the scheduler or a worker has no kedge, or another one: install the same "
            "on all machines"
        )
    return error


class LazyResult(Future[Result]):
    """A result that this process computes when `result` is called for the first time."""

    def __init__(self, task: Callable[[], Result]) -> None:
        """Keep the task."""
        super().__init__()
        self._task = task

    def result(self, timeout: float | None = None) -> Result:
        """Return the result. Raises what the task raises."""
        if not self.done():
            self.set_result(self._task())
        return super().result(timeout)


class InProcess(Executor):
    """Runs each task in this process when its result is requested."""

    def submit(
        self,
        task: Callable[Arguments, Result],
        /,
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Future[Result]:
        """Return the future of a task."""
        return LazyResult(partial(task, *arguments, **named))


@contextmanager
def in_process() -> Iterator[Executor]:
    """Yield an executor that runs tasks in this process."""
    yield InProcess()


MAX_JOBS = 1024  # more than any machine has cores


@dataclass(frozen=True)
class Pool:
    """Where tasks run. `jobs`: worker processes at once. `scheduler`: address of a Dask scheduler.

    Raises UsageError for both.
    """

    jobs: int = 1
    scheduler: str | None = None

    def __post_init__(self) -> None:
        """Refuse worker processes beside a cluster."""
        if self.scheduler and self.jobs > 1:
            raise UsageError("--jobs: a cluster's workers are counted by it; leave --jobs out")


def executor(pool: Pool) -> AbstractContextManager[Executor]:
    """Return the executor, to open by `with`; at its end, tasks that have not started are dropped.

    Raises UsageError for a cluster that can't be reached, and for a missing extra.
    """
    if pool.scheduler:
        return cluster_executor(pool.scheduler)
    return process_executor(pool.jobs) if pool.jobs > 1 else in_process()
