"""Hand over the newest frame of a live source.

Capturing never waits for the model, and memory holds one frame however slow the model is.
"""

import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace

from kedge_runtime.errors import ImageError
from kedge_runtime.streams.sources import Frame, ended, numbered

# Seconds without a frame after which a camera counts as gone; OpenCV's own patience is as long.
TIMEOUT = 10.0
# Seconds that the end of a stream waits for its thread; a hanging read can't be ended.
PATIENCE = 2.0


class Mailbox:
    """Holds one frame between two threads: a new frame replaces the older one."""

    def __init__(self) -> None:
        """Begin empty."""
        self.dropped = 0
        self._changed = threading.Condition()
        self._frame: Frame | None = None
        self._ended = False
        self._error: BaseException | None = None

    def put(self, frame: Frame) -> bool:
        """Put a frame in, dropping an older one; return False after the end."""
        with self._changed:
            if not self._ended:
                self.dropped += self._frame is not None
                self._frame = frame
                self._changed.notify_all()
            return not self._ended

    def end(self, error: BaseException | None = None) -> None:
        """Accept no more frames, because of `error` if there is one."""
        with self._changed:
            if not self._ended:
                self._ended, self._error = True, error
            self._changed.notify_all()

    def take(self, timeout: float) -> Frame | None:
        """Take the newest frame, waiting up to `timeout` seconds; None after the end.

        Raises the error that ended it, after the last frame, and TimeoutError.
        """
        with self._changed:
            if not self._changed.wait_for(self._is_ready, timeout):
                raise TimeoutError
            frame, self._frame = self._frame, None
            if frame is not None:
                return replace(frame, dropped=self.dropped)
            if self._error is not None:
                raise self._error
            return None

    def _is_ready(self) -> bool:
        return self._frame is not None or self._ended


def latest(
    frames: Iterable[Frame], source: str = "the camera", timeout: float = TIMEOUT
) -> Iterator[Frame]:
    """Yield the newest of `frames` on each request; a separate thread reads them.

    The thread starts with the first request. It ends, and closes `frames`, after the last frame or
    when this generator is closed. `source`: its name in messages. `dropped` of a frame counts the
    skipped ones. Raises what `frames` raises, and ImageError when no frame arrives for `timeout`
    seconds.
    """
    box = Mailbox()
    thread = threading.Thread(target=_fill, args=(box, frames), name="kedge-capture", daemon=True)
    thread.start()
    try:
        while (frame := box.take(timeout)) is not None:
            yield frame
    except TimeoutError:
        raise ImageError(
            f"{source}: no frame for {timeout:g} s; check its cable and its power"
        ) from None
    finally:
        box.end()
        thread.join(PATIENCE)


def _fill(box: Mailbox, frames: Iterable[Frame]) -> None:
    try:
        with ended(frames):
            for frame in numbered(frames):
                if not box.put(frame):
                    return
    except BaseException as error:
        # Whatever it is, the consumer has to see it.
        box.end(error)
    else:
        box.end()
