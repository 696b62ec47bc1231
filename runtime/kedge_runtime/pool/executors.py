"""Choose where work is done: in this process, in processes, or on a Dask cluster.

All are `concurrent.futures` executors.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar

from kedge_runtime.errors import UsageError
from kedge_runtime.pool import dask, processes

Given = ParamSpec("Given")
Result = TypeVar("Result")


class Later(Future[Result]):
    """A result that is worked out, here, when it is asked for the first time."""

    def __init__(self, work: Callable[[], Result]) -> None:
        """Remember the work."""
        super().__init__()
        self._work = work

    def result(self, timeout: float | None = None) -> Result:
        """Return the result. Raises what the work raises."""
        if not self.done():
            self.set_result(self._work())
        return super().result(timeout)


class Here(Executor):
    """Does each piece of work in this process, in the order in which results are asked for."""

    def submit(
        self, work: Callable[Given, Result], /, *words: Given.args, **named: Given.kwargs
    ) -> Future[Result]:
        """Return the result-to-be."""
        return Later(partial(work, *words, **named))


@contextmanager
def opened() -> Iterator[Executor]:
    """Yield it."""
    yield Here()


MAX_JOBS = 1024  # more than any machine has cores


@dataclass(frozen=True)
class Pool:
    """`jobs`: processes at once. `scheduler`: address of a Dask cluster's, which does all then.

    Raises UsageError for both.
    """

    jobs: int = 1
    scheduler: str | None = None

    def __post_init__(self) -> None:
        """Refuse two masters."""
        if self.scheduler and self.jobs > 1:
            raise UsageError("--jobs: a cluster's workers are counted by it; leave --jobs out")


def executor(pool: Pool) -> AbstractContextManager[Executor]:
    """Return what does the work, to be opened by `with`; at its end what isn't begun is dropped.

    Raises UsageError for a cluster that can't be reached, and for a missing extra.
    """
    if pool.scheduler:
        return dask.opened(pool.scheduler)
    return processes.opened(pool.jobs) if pool.jobs > 1 else opened()
