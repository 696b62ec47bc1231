"""Run a small model on several images at once: a copy of its engine for each thread.

Two engines of one thread give more images a second than one engine of two threads
(docs/performance.md): a thread that decodes leaves the other's engine alone, and no layer waits for
the slower half of itself.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from queue import SimpleQueue

from kedge_runtime.arrays import Array
from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.engines.base import Engine
from kedge_runtime.engines.choice import EngineOptions, cores

# Bytes of all copies: an engine packs the weights anew, beside the file's bytes that all share.
TOGETHER = 128 << 20


def copies(size: int, threads: int) -> int:
    """Return how many copies of a model of so many bytes share the threads, at least one."""
    return max(1, min(threads, TOGETHER // max(1, size)))


def open_copies(
    load: Callable[[ModelContent, EngineOptions], Engine],
    content: ModelContent,
    options: EngineOptions,
) -> Engine:
    """Load a model as often as it may run at once, once a core at most. Raises what `load` does."""
    count = copies(len(content.data), min(options.thread_count, cores()))
    if count == 1:
        return load(content, options)
    each, rest = divmod(options.thread_count, count)
    shares = [each + (number < rest) for number in range(count)]
    return Copies([load(content, replace(options, threads=share)) for share in shares])


class Copies(Engine):
    """Engines of one model: a run takes an idle one, or waits for it.

    The steps of a run, for who clocks them, are those of the first one.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        """Take the engines, at least one."""
        self._engines, self._first = engines, engines[0]
        super().__init__(*self._first.ports)
        self.name, self.library = self._first.name, self._first.library
        self.faults, self.note = self._first.faults, self._first.note
        self._idle = SimpleQueue[Engine]()
        for engine in engines:
            self._idle.put(engine)

    @contextmanager
    def _taken(self) -> Iterator[Engine]:
        engine = self._idle.get()
        try:
            yield engine
        finally:
            self._idle.put(engine)

    def run(self, tensor: Array) -> Array:
        """Run one input on an idle engine, as `Engine.run`."""
        with self._taken() as engine:
            return engine.run(tensor)

    def run_many(self, tensors: Array) -> Array:
        """Run several inputs on one idle engine, as `Engine.run_many`."""
        with self._taken() as engine:
            return engine.run_many(tensors)

    def warm_up(self) -> None:
        """Run each engine once on zeros."""
        for engine in self._engines:
            engine.warm_up()

    def set(self, tensors: Array) -> None:
        """Set the first engine's inputs."""
        self._first.set(tensors)

    def invoke(self) -> None:
        """Run the first engine's network."""
        self._first.invoke()

    def get(self) -> Array:
        """Return the first engine's output."""
        return self._first.get()

    def release(self) -> None:
        """Close every engine."""
        for engine in self._engines:
            engine.close()
