"""Messages of a stream, made up: answers with a number, and events."""

import threading
import time
from collections.abc import Callable

import numpy as np

from kedge_runtime.classify.results import Prediction, Result
from kedge_runtime.streams.answers import Answer
from kedge_runtime.streams.events import Event
from kedge_runtime.streams.sources import Frame
from kedge_runtime.watch.message import Origin

ORIGIN = Origin(["bird.tflite"], "camera 0")
SECONDS = 1795308123.25


def answer(index: int, name: str = "heron") -> Answer:
    """Return an answer of the frame `index`."""
    best = Prediction(3, "n3", name, 0.9)
    frame = Frame(index, SECONDS + index, np.zeros((4, 4, 3), np.uint8))
    return Answer(frame, Result(best, (best,), 0.8, 0.12))


def event(kind: str = "source-back") -> Event:
    """Return an event."""
    return Event(SECONDS, kind, "camera 0: back after 12 s", {"seconds": 12.04})


def soon(holds: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until something holds. Raises AssertionError when it doesn't."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it didn't happen in time"
        threading.Event().wait(0.02)
