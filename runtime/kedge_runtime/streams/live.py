"""Read a live source for as long as it takes: keep its newest frame, and open it again when lost.

One thread reads the source for the stream's whole life. So a source that hangs costs one thread,
however long the stream runs.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import cv2

from kedge_runtime.errors import ImageError, KedgeError, one_line
from kedge_runtime.streams.events import Event
from kedge_runtime.streams.picamera import NAME, open_picamera2
from kedge_runtime.streams.sources import (
    PATIENCE,
    Clock,
    Frame,
    Mailbox,
    camera_name,
    ended,
    open_camera,
)

Connect = Callable[[], Iterator[Frame]]

# The library of a camera's name, up to a colon; any other name is OpenCV's.
OPENERS: dict[str, Callable[[str], Iterator[Frame]]] = {NAME: open_picamera2}

LOST, BACK, RESIZED = "source-lost", "source-back", "source-resized"


@dataclass(frozen=True)
class Waits:
    """How long a live source is waited for, in seconds.

    `silence`: without a frame it counts as lost. `stuck`: a read that takes longer ends the stream.
    `first`, `most`: the pause before the source is opened again; it doubles with each try, and is
    the first one again when the source gave frames for `most` seconds.
    """

    silence: float = 10.0
    stuck: float = 60.0
    first: float = 1.0
    most: float = 60.0


def open_live(camera: str, waits: Waits = Waits(), clock: Clock = time.time) -> "LiveSource":
    """Open a camera by number, device, address or `picamera2`.

    Raises ImageError or UsageError when the first try fails: a wrong name never comes back.
    """
    opener = OPENERS.get(camera.partition(":")[0], open_camera)
    return LiveSource(lambda: opener(camera), camera_name(camera), waits, clock)


class LiveSource:
    """Iterates over the newest frames of a live source, and the events of its connection."""

    def __init__(
        self, connect: Connect, name: str, waits: Waits = Waits(), clock: Clock = time.time
    ) -> None:
        """Open the source for the first time. Raises what `connect` raises."""
        self.name = name
        self._connect, self._waits, self._clock = connect, waits, clock
        self._box, self._stop = Mailbox(), threading.Event()
        self._link = _Link(name, clock)
        self._reading_since: float | None = None
        frames = connect()
        self._thread = threading.Thread(
            target=self._capture, args=(frames,), name="kedge-capture", daemon=True
        )

    def __iter__(self) -> Iterator[Frame | Event]:
        """Yield the newest frame on each request, and events in their order, until `close`.

        Raises ImageError when a read hangs for good: only a new process can end it.
        """
        self._thread.start()
        try:
            while (item := self._next()) is not None:
                yield item
        finally:
            self.close()

    def close(self) -> None:
        """End the stream, from any thread. A hanging read can't be ended, and isn't waited for."""
        self._stop.set()
        self._box.end()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(PATIENCE)

    def _next(self) -> Frame | Event | None:
        while True:
            try:
                return self._box.take(self._waits.silence)
            except TimeoutError:
                self._check_stuck()
                silence = f"no frame for {self._waits.silence:g} s"
                if (event := self._link.lose(silence)) is not None:
                    return event

    def _check_stuck(self) -> None:
        since = self._reading_since
        if since is not None and time.monotonic() - since > self._waits.stuck:
            raise ImageError(
                f"{self.name}: its driver has hung for {self._waits.stuck:g} s; "
                "start kedge again, and check the cable and the power"
            )

    def _capture(self, frames: Iterator[Frame]) -> None:
        """Fill the mailbox until the stream ends. What is no KedgeError ends the stream."""
        index, pause = 0, self._waits.first
        try:
            while not self._stop.is_set():
                began = time.monotonic()
                index = self._read(frames, index)
                held = time.monotonic() - began > self._waits.most
                pause = self._waits.first if held else pause
                frames, pause = self._again(pause)
        except _StoppedError:
            self._box.end()
        except BaseException as error:
            # Whatever it is, the consumer has to see it.
            self._box.end(error)

    def _read(self, frames: Iterator[Frame], index: int) -> int:
        """Hand on frames until the source fails; return the next frame's index."""
        reason = "ended"
        try:
            with ended(frames):
                self._reading_since = time.monotonic()
                for frame in frames:
                    self._tell(self._link.come_back())
                    if not self._box.put(replace(frame, index=index)):
                        raise _StoppedError
                    index += 1
                    self._reading_since = time.monotonic()
        except (ImageError, cv2.error) as error:
            reason = one_line(error).removeprefix(f"{self.name}: ")
        finally:
            self._reading_since = None
        self._tell(self._link.lose(reason))
        return index

    def _again(self, pause: float) -> tuple[Iterator[Frame], float]:
        """Open the source again, however long it takes; return its frames and the next pause."""
        while not self._stop.wait(pause):
            pause = min(2 * pause, self._waits.most)
            self._reading_since = time.monotonic()
            try:
                return self._connect(), pause
            except KedgeError:
                continue  # told as lost already
            finally:
                self._reading_since = None
        raise _StoppedError

    def _tell(self, event: Event | None) -> None:
        if event is not None:
            self._box.tell(event)


class _StoppedError(Exception):
    """Ends the capture thread."""


class _Link:
    """Knows whether the source is there, and since when it isn't. Threads may share it."""

    def __init__(self, name: str, clock: Clock) -> None:
        self._name, self._clock = name, clock
        self._lock = threading.Lock()
        self._since: float | None = None
        self._began = 0.0

    def lose(self, reason: str) -> Event | None:
        """Return the event of a loss; None where the source is lost already."""
        with self._lock:
            if self._since is not None:
                return None
            self._since, self._began = time.monotonic(), self._clock()
            return Event(self._began, LOST, f"{self._name}: lost: {reason}")

    def come_back(self) -> Event | None:
        """Return the event of a return; None where the source was there."""
        with self._lock:
            if self._since is None:
                return None
            seconds, self._since = time.monotonic() - self._since, None
            text = f"{self._name}: back after {seconds:.0f} s"
            return Event(self._clock(), BACK, text, {"seconds": round(seconds, 3)})


def resized(frame: Frame, before: tuple[int, int], name: str) -> Event | None:
    """Return the event of a frame of another size than the frame before, (height, width)."""
    height, width = frame.pixels.shape[:2]
    if (height, width) == before:
        return None
    text = f"{name}: frames of {width}x{height} pixels, before {before[1]}x{before[0]}"
    return Event(frame.seconds, RESIZED, text, {"width": width, "height": height})
