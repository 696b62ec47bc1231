"""Batches of inputs in child processes: an input that ends its process ends that one alone."""

import faulthandler
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from time import monotonic
from typing import Any

import cv2

from fuzz.doors import DOORS, Door, root
from fuzz.trial import Fault, attempt, bounded

# Seconds without a next input: a wait, or C code that no signal of Python's interrupts.
STUCK = 60.0
_CONTEXT = get_context("fork")


@dataclass(frozen=True)
class Batch:
    """Inputs of one door from number `start` on, for some seconds, `most` of them at most."""

    name: str
    seed: int
    start: int
    most: int
    seconds: float


@dataclass
class Child:
    """A process at a batch; `place` is shared: the number of the input that it is at."""

    batch: Batch
    place: Any = field(init=False)
    process: Any = field(init=False)
    inbox: Connection = field(init=False)
    took: float = 0.0
    _began: float = field(init=False)
    _seen: tuple[int, float] = field(init=False)

    def __post_init__(self) -> None:
        """Start it."""
        root()
        self._began = monotonic()
        self.inbox, outbox = _CONTEXT.Pipe(duplex=False)
        self.place = _CONTEXT.RawValue("q", self.batch.start)
        self.process = _CONTEXT.Process(target=_work, args=(self.batch, self.place, outbox))
        self.process.start()
        outbox.close()
        self._seen = self.batch.start, monotonic()

    @property
    def ended(self) -> bool:
        """Whether it is over; one that is stuck is ended first."""
        place, now = self.place.value, monotonic()
        if place != self._seen[0]:
            self._seen = place, now
        elif now - self._seen[1] > STUCK:
            self.process.kill()
            self.process.join()
        self.took = now - self._began
        return self.process.exitcode is not None

    def faults(self) -> Iterator[tuple[int, Fault]]:
        """Yield number and fault of what it found, its own end too."""
        try:
            while self.inbox.poll():
                yield self.inbox.recv()
        except EOFError:
            pass
        code = self.process.exitcode
        if code is not None and code < 0:
            where = signal.Signals(-code).name
            stuck = -code == signal.SIGKILL
            yield self.place.value, Fault("hang" if stuck else "crash", where)

    @property
    def tried(self) -> int:
        """How many inputs it is through with."""
        died = self.process.exitcode not in (None, 0)
        return int(self.place.value) - self.batch.start + died


def wait(children: list[Child], seconds: float) -> None:
    """Wait for the end of a child, or for some time."""
    connection.wait([child.process.sentinel for child in children], seconds)


def _work(batch: Batch, place: Any, outbox: Connection) -> None:
    """Try the batch's inputs; each finding is told once. Ends early after one of memory."""
    _settle()
    door, ends, told = DOORS[batch.name], monotonic() + batch.seconds, set[str]()
    with bounded(door) as bounds:
        for number in range(batch.start, batch.start + batch.most):
            if not number % 16 and monotonic() > ends:
                break
            place.value = number
            fault = attempt(door, door.make(batch.name, batch.seed, number), bounds)
            place.value = number + 1
            if fault and fault.where not in told:
                told.add(fault.where)
                outbox.send((number, fault))
            if fault and fault.kind == "memory":
                break
    os._exit(0)


def _settle() -> None:
    """Make a forked child one of a single thread, whose crash is told by its parent."""
    faulthandler.disable()
    cv2.setNumThreads(1)


def alone(name: str, content: bytes) -> Fault | None:
    """Try one input in a process of its own; return what is wrong with the outcome."""
    root()
    inbox, outbox = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_once, args=(DOORS[name], content, outbox))
    process.start()
    outbox.close()
    process.join(STUCK)
    if process.exitcode is None:
        process.kill()
        process.join()
        return Fault("hang", "SIGKILL")
    if process.exitcode:
        return Fault("crash", signal.Signals(-process.exitcode).name)
    fault: Fault | None = inbox.recv()
    return fault


def _once(door: Door, content: bytes, outbox: Connection) -> None:
    _settle()
    with bounded(door) as bounds:
        outbox.send(attempt(door, content, bounds))
    os._exit(0)
