"""Work on the next images in threads, one for each core: decoders and engines release the GIL.

This is the one place where kedge works ahead: `ahead` prepares images while the caller runs the
engine, `answered` runs the engine in the same threads (engines/copies.py).
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, TypeVar

from kedge_runtime.engines.choice import cores
from kedge_runtime.image.decode import MAX_MEMORY
from kedge_runtime.image.memory import DecodeMemory

Item = TypeVar("Item")
Value = TypeVar("Value")
# Images that are prepared or wait for the engine, for each thread.
EACH = 2


@contextmanager
def ahead(
    task: Callable[[Item], Value], items: Iterable[Item]
) -> Iterator[Iterator[tuple[Item, Callable[[], Value]]]]:
    """Yield each item with the function that returns `task(item)` or raises its error, in order.

    A few items beyond the current one are taken and worked on, unless the iterator `items` has a
    method `ready` that says that its next item isn't there yet. At the end of the block what has
    not started is dropped. A single item starts no thread.
    """
    with ExitStack() as stack:
        yield _ahead(partial(_bounded, DecodeMemory(MAX_MEMORY), task), iter(items), stack)


@contextmanager
def answered(
    prepare: Callable[[Item], Callable[[], Value]], items: Iterable[Item]
) -> Iterator[Iterator[tuple[Item, Callable[[], Value]]]]:
    """As `ahead`; `prepare` returns the function for the engine's part, and threads call it, too.

    What an image took for its decoding is free by then.
    """
    with ExitStack() as stack:
        budget = DecodeMemory(MAX_MEMORY)
        yield _ahead(lambda item: _bounded(budget, prepare, item)(), iter(items), stack)


def _ahead(
    task: Callable[[Item], Value], items: Iterator[Item], stack: ExitStack
) -> Iterator[tuple[Item, Callable[[], Value]]]:
    waiting = deque[tuple[Item, Callable[[], Value]]]()
    submit: Callable[..., Any] | None = None
    is_ready: Callable[[], bool] = getattr(items, "ready", lambda: True)
    while True:
        while waiting and (len(waiting) >= EACH * cores() or not is_ready()):
            yield waiting.popleft()
        try:
            item = next(items)
        except StopIteration:
            break
        if not waiting:  # the caller's own thread works on it
            waiting.append((item, partial(task, item)))
            continue
        submit = submit or _threads(stack)
        waiting.append((item, submit(task, item).result))
    yield from waiting


def _bounded(budget: DecodeMemory, task: Callable[[Item], Value], item: Item) -> Value:
    with budget.one_image():
        return task(item)


def _threads(stack: ExitStack) -> Callable[..., Any]:
    """Start threads, one for each core, that end with the block; return their `submit`."""
    from concurrent.futures import ThreadPoolExecutor  # a single image needs none

    threads = ThreadPoolExecutor(cores(), thread_name_prefix="kedge-images")
    stack.callback(threads.shutdown, cancel_futures=True)
    return threads.submit
