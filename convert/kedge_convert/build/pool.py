"""Where work is done: here, or in several processes; both are `concurrent.futures`."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import ParamSpec, TypeVar

from kedge_convert.worker import end_with

Given = ParamSpec("Given")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Pool:
    """`jobs`: processes at once."""

    jobs: int = 1


class Here(Executor):
    """Does each piece of work in this process, when it is submitted."""

    def submit(
        self, work: Callable[Given, Result], /, *words: Given.args, **named: Given.kwargs
    ) -> "Future[Result]":
        """Return the result, as a future that is done. Raises what `work` raises."""
        future: Future[Result] = Future()
        future.set_result(work(*words, **named))
        return future


@contextmanager
def executor(pool: Pool) -> Iterator[Executor]:
    """Yield what does the work."""
    if pool.jobs == 1:
        yield Here()
    else:
        with processes(pool.jobs) as several:
            yield several


def processes(count: int) -> ProcessPoolExecutor:
    """Return a pool of fresh processes, none of which outlives this one."""
    return ProcessPoolExecutor(
        count, mp_context=get_context("spawn"), initializer=end_with, initargs=(os.getpid(),)
    )
