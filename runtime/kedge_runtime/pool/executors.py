"""Choose where tasks run: in this process, in worker processes, or on a Dask cluster.

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

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


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
        return dask.cluster_executor(pool.scheduler)
    return processes.process_executor(pool.jobs) if pool.jobs > 1 else in_process()
