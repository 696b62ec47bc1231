"""Work in this process, a piece when its result is asked for."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from functools import partial
from typing import ParamSpec, TypeVar

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
