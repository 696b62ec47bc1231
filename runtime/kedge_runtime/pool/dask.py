"""Run tasks on a Dask cluster, whose machines see the same files under the same paths.

Each task runs in a process of its own on the worker. So a crash costs one task, where Dask would
blame all tasks that the worker had. Dask itself replaces lost workers.
"""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from multiprocessing import current_process
from types import ModuleType
from typing import Any, ParamSpec, TypeVar
from uuid import uuid4

from kedge_runtime import __version__
from kedge_runtime.errors import EngineError, LostError, UsageError, install
from kedge_runtime.identity import identity
from kedge_runtime.output import say
from kedge_runtime.pool.processes import in_own_process

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
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
