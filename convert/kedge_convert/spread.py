"""Run a model on many images, in as many threads as there are cores.

Engines and decoders let Python go on meanwhile. LiteRT's kernels of 16-bit activations know one
thread only, and the others gain as the next image is decoded while one is run.
"""

from collections.abc import Callable, Iterable, Iterator
from threading import Lock
from typing import TypeVar

import numpy as np

from kedge_convert.images import Tick
from kedge_runtime.arrays import Floats
from kedge_runtime.image.ahead import ahead

Item = TypeVar("Item")


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
    run: Callable[[Item], Floats], items: Iterable[Item], tick: Tick = lambda: None
) -> Floats:
    """Return the numbers of each item, in order, [items, ...].

    Threads call `run` at once, so its engine is opened with `copies`. `tick` is called after each
    item. Raises the first error of a run.
    """
    rows = []
    with ahead(run, items) as answers:
        for _, answer in answers:
            rows.append(answer())
            tick()
    return np.stack(rows) if rows else np.empty((0, 0), np.float32)
