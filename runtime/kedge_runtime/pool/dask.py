"""Work on a Dask cluster, whose machines see the same files under the same paths.

Each piece is done in a process of its worker's own: one that crashes costs itself only, where Dask
would blame all that the worker had before it. A worker that is lost itself is Dask's to replace.
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
from kedge_runtime.errors import EngineError, LostError, UsageError
from kedge_runtime.identity import identity
from kedge_runtime.output import say
from kedge_runtime.pool.processes import apart

Given = ParamSpec("Given")
Result = TypeVar("Result")
Versions = dict[str, str]
# What the scheduler says of work that it can't unpickle.
_UNREAD = "Error during deserialization of the task graph"


class Cluster(Executor):
    """Dask's own executor, which tells of what it lost in our words."""

    def __init__(self, client: Any) -> None:
        """Take a `distributed.Client`."""
        # Not pure: files are read, so equal calls may have different results.
        self._inner: Executor = client.get_executor(pure=False)
        self._versions, self._run = versions(), uuid4().hex

    def submit(
        self, work: Callable[Given, Result], /, *words: Given.args, **named: Given.kwargs
    ) -> Future[Result]:
        """Return the result-to-be; its error is what `work` raises, LostError, or EngineError
        for a cluster that is gone.
        """
        told: Future[Result] = Future()
        called = partial(work, *words, **named)
        asked = self._inner.submit(_done, self._run, partial(_alike, self._versions, called))
        asked.add_done_callback(partial(_tell, told))
        return told

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Drop what isn't done; whoever wants a result has asked for it before."""
        self._inner.shutdown(wait=False)


@contextmanager
def opened(address: str) -> Iterator[Executor]:
    """Yield the executor of a cluster. Raises UsageError when it can't be reached."""
    library = _distributed()
    # It writes tracebacks about a cluster that is gone; what that means is said below.
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
            f"--scheduler: {error.name} isn't installed: pip install './kedge[distributed]'"
        ) from None


def versions() -> Versions:
    """Return what must be the same on all machines, for the results to be those of one."""
    known = identity()
    return {"kedge": __version__, "python": known["python"], **known["packages"]}


def _done(run: str, work: Callable[[], Result]) -> Result:
    """Do the work, on a worker."""
    # Dask's nanny starts workers as daemons, which may have no processes of their own.
    current_process().daemon = False
    return apart(work, run)


def _alike(expected: Versions, work: Callable[[], Result]) -> Result:
    """Do the work, in its process. Raises UsageError where another version would do it."""
    found = versions()
    if found != expected:
        names = sorted(
            name for name in {*found, *expected} if found.get(name) != expected.get(name)
        )
        differ = ", ".join(f"{name} {found.get(name)} for {expected.get(name)}" for name in names)
        raise UsageError(f"--scheduler: a worker has {differ}: install the same on all machines")
    return work()


def _tell(told: Future[Result], asked: Future[Result]) -> None:
    """Pass on what became of a piece of work, unless nobody wants it any more."""
    if not told.set_running_or_notify_cancel():
        return
    if asked.cancelled():
        told.set_exception(EngineError("--scheduler: the cluster is gone; start it and run again"))
    elif error := asked.exception():
        told.set_exception(_ours(error))
    else:
        told.set_result(asked.result())


def _ours(error: BaseException) -> BaseException:
    if isinstance(error, _distributed().scheduler.KilledWorker):
        return LostError(f"ended {error.allowed_failures + 1} workers of the cluster")
    if isinstance(error, ImportError) or _UNREAD in str(error):
        return UsageError(
            "--scheduler: the scheduler or a worker has no kedge, or another one: install the same "
            "on all machines"
        )
    return error
