"""Run tasks in worker processes of this machine, one process for each submitting thread.

A shared pool breaks as a whole when one process is lost, and does not tell which task it ran. Here
a lost process costs one known task.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import active_children, get_context
from threading import local
from typing import ParamSpec, TypeVar

from kedge_runtime.errors import LostError

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
