"""Where work is done: here, in processes, or by a Dask cluster; all are `concurrent.futures`.

Twins, one module each, with one verb `opened(...)`, which yields an executor. What a worker was at
when it was lost is done again by another one; LostError tells of work that ended each of them.
"""

from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import dataclass

from kedge_runtime.errors import UsageError
from kedge_runtime.pool import dask, here, processes

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
    return processes.opened(pool.jobs) if pool.jobs > 1 else here.opened()
