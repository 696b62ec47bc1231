"""Work in processes of this machine: one for each thread that gives it, so that a loss is its own.

A shared pool of processes breaks whole when one is lost, and doesn't tell which piece of work it
was. Here a lost process costs the piece that it was at, and that is known.
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

Given = ParamSpec("Given")
Result = TypeVar("Result")

# As many as Dask allows (its distributed.scheduler.allowed-failures).
ALLOWED_LOSSES = 3
# https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html
PR_SET_PDEATHSIG = 1

_own = local()


class Processes(Executor):
    """Hands each piece of work to a thread that has it done in its own process."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        """Take the threads, one for each process."""
        self._threads = threads

    def submit(
        self, work: Callable[Given, Result], /, *words: Given.args, **named: Given.kwargs
    ) -> Future[Result]:
        """Return the result-to-be; its error is what `work` raises, or LostError."""
        return self._threads.submit(apart, partial(work, *words, **named))


@contextmanager
def opened(count: int) -> Iterator[Executor]:
    """Yield an executor of `count` processes."""
    with ThreadPoolExecutor(count, thread_name_prefix="kedge-jobs") as threads, ended_by_errors():
        try:
            yield Processes(threads)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


def apart(work: Callable[[], Result], run: str = "") -> Result:
    """Do a piece of work in this thread's own process; when that is lost, again in another one.

    `run`: pieces with the same one share a process, which remembers files that it has read. Raises
    what `work` raises, and LostError when it has ended one process more than is allowed.
    """
    for _ in range(1 + ALLOWED_LOSSES):
        if getattr(_own, "run", None) != run:
            _own.run, _own.process = run, process()
        try:
            result: Result = _own.process.submit(work).result()
        except BrokenProcessPool:
            del _own.run
        else:
            return result
    raise LostError(f"ended {1 + ALLOWED_LOSSES} processes (killed, crashed or out of memory)")


def process() -> ProcessPoolExecutor:
    """Return a fresh process that doesn't outlive this thread, on Linux however that ends."""
    return ProcessPoolExecutor(
        1, mp_context=get_context("spawn"), initializer=_begin, initargs=(os.getpid(),)
    )


@contextmanager
def ended_by_errors() -> Iterator[None]:
    """End the processes that the block started when it is left by an error or by `sys.exit`.

    Ctrl-C they hear themselves.
    """
    before = set(active_children())
    try:
        yield
    except (Exception, SystemExit):
        for child in set(active_children()) - before:
            child.terminate()
        raise


def _begin(parent: int) -> None:
    """Clean up, as after Ctrl-C, when this process is terminated."""
    end_with(parent)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def end_with(parent: int) -> None:
    """Let the system end this process with its parent, however that one ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
