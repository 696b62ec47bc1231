"""Run a converted model on many images, in as many threads as there are cores.

Engines and decoders let Python go on meanwhile. LiteRT's kernels of 16-bit activations know one
thread only, and the others gain as the next image is decoded while one is run.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Lock
from typing import TypeVar

import numpy as np

from kedge_convert.images import Tick
from kedge_runtime.arrays import Floats
from kedge_runtime.engines.choice import cores

Item = TypeVar("Item")
Run = Callable[[Item], Floats]
LARGEST = 64 << 20  # bytes of a model: each thread holds its own copy


def copies(size: int) -> int:
    """Return how many threads run a model of so many bytes, each with a copy of its own."""
    return cores() if size <= LARGEST else 1


def shared(items: Iterable[Item]) -> Callable[[], Iterator[Item]]:
    """Return what gives each thread an iterator; each item goes to the first one that takes it."""
    rest, lock, end = iter(items), Lock(), object()

    def taking() -> Iterator[Item]:
        while True:
            with lock:
                item = next(rest, end)
            if item is end:
                return
            yield item  # type: ignore[misc]  # it is no end

    return taking


def spread(
    opened: Callable[[int | None], Run[Item]],
    size: int,
    items: Iterable[Item],
    tick: Tick = lambda: None,
) -> Floats:
    """Return the numbers of each item, in order, [items, ...].

    `opened`: opens the model with so many threads, None for all cores, and returns its run. `size`:
    the model's, in bytes. `tick` is called after each item. Raises the first error of a run.
    """
    count = copies(size)
    idle: SimpleQueue[Run[Item]] = SimpleQueue()
    for _ in range(count):
        idle.put(opened(1 if count > 1 else None))

    def answer(item: Item) -> Floats:
        run = idle.get()
        try:
            return run(item)
        finally:
            idle.put(run)

    rows = []
    with ThreadPoolExecutor(count, thread_name_prefix="kedge-answers") as threads:
        for row in threads.map(answer, items):
            rows.append(row)
            tick()
    return np.stack(rows) if rows else np.empty((0, 0), np.float32)
