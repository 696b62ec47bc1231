"""Hold what the page shows: the newest frame, its result, and what happened before."""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import cv2
import numpy as np

from kedge_runtime.arrays import Pixels
from kedge_runtime.classify.results import Result
from kedge_runtime.streams.events import Event
from kedge_runtime.streams.live import BACK, LOST
from kedge_runtime.streams.sources import Frame, ended
from kedge_runtime.watch.loop import Message

HISTORY = 200  # messages
WIDTH, QUALITY = 640, 80  # of the live image: pixels at most, and JPEG's 0..100


class View:
    """Looks on at a stream: a tap on its frames, an observer and a sink. Threads may share it."""

    def __init__(self) -> None:
        """Begin without a frame."""
        self._lock = threading.Lock()
        self._frame: Frame | None = None
        self._encoded: tuple[Frame | None, bytes] = None, b""
        self._result: Result | None = None
        # Rows, not messages: those hold their frames.
        self._history = deque[dict[str, Any]](maxlen=HISTORY)
        self._number = 0
        self.stopped = False
        self.lost = False

    def tapped(self, items: Iterable[Frame | Event]) -> Iterator[Frame | Event]:
        """Yield a stream's items, and note each frame on its way."""
        with ended(items):
            for item in items:
                if self.stopped:
                    return
                if isinstance(item, Frame):
                    self._frame = item
                yield item

    def stop(self) -> None:
        """End the tapped stream with its next item, and the live images."""
        self.stopped = True

    def observe(self, pixels: Pixels, result: Result) -> Iterable[Event]:
        """Note the result of a classified frame."""
        with self._lock:
            self._result = result
        return ()

    def put(self, message: Message) -> None:
        """Note an answer or an event."""
        with self._lock:
            self._number += 1
            self._history.append(_row(self._number, message))
            if isinstance(message, Event) and message.kind in (LOST, BACK):
                self.lost = message.kind == LOST

    def close(self) -> None:
        """Do nothing: the page shows what it has."""

    def is_live(self) -> bool:
        """Return whether frames arrive."""
        return self._frame is not None and not self.lost

    @property
    def frame(self) -> Frame | None:
        """The newest frame; None before the first."""
        return self._frame

    def state(self, after: int) -> dict[str, Any]:
        """Return the result, and the messages with a larger number than `after`, newest first."""
        with self._lock:
            result, history = self._result, list(self._history)
            number = self._number
        rows = [row for row in reversed(history) if row["number"] > after]
        shown = None if result is None else result.to_dict()
        return {"live": self.is_live(), "number": number, "result": shown, "history": rows}

    def jpeg(self) -> bytes:
        """Return the newest frame as JPEG, encoded once for all; empty before the first."""
        frame, encoded = self._frame, self._encoded
        if frame is not None and encoded[0] is not frame:
            encoded = self._encoded = frame, _jpeg(frame.pixels)
        return encoded[1]


def _row(number: int, message: Message) -> dict[str, Any]:
    if isinstance(message, Event):
        return {"number": number, "time": message.time, "text": message.text, "kind": message.kind}
    best = message.result.best
    answer = {"label": message.result.label, "best": best.name, "probability": best.probability}
    return {"number": number, "time": message.frame.seconds, **answer}


def _jpeg(pixels: Pixels) -> bytes:
    height, width = pixels.shape[:2]
    if width > WIDTH:
        size = WIDTH, max(round(height * WIDTH / width), 1)
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    ordered = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode(".jpg", ordered, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1])
