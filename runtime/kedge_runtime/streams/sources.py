"""Read frames from video files, cameras and Picamera2, and hand over the newest of a live source.

Capturing never waits for the model, and memory holds one frame however slow the model is.
"""

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.arrays import Pixels
from kedge_runtime.artefact.kinds import Colour
from kedge_runtime.errors import ImageError, UsageError, reason_of
from kedge_runtime.image.decode import LIMITS, ImageLimits, read_image
from kedge_runtime.image.opencv import cv2
from kedge_runtime.streams.events import Event

Clock = Callable[[], float]


@dataclass(frozen=True, eq=False)
class Frame:
    """One image of a stream.

    `index` counts the source's frames from 0, dropped ones included. `seconds`: in a video since
    its first frame, in a live source since 1970. `pixels`: RGB uint8 [h, w, 3]. `dropped`: the
    number of frames skipped so far because newer ones arrived first.
    """

    index: int
    seconds: float
    pixels: Pixels
    dropped: int = 0


def numbered(
    frames: Iterable[Frame | NDArray[Any]], colour: Colour = "rgb", clock: Clock = time.time
) -> Iterator[Frame]:
    """Yield arrays, uint8 [h, w, 3] in the order of `colour`, as frames; yield frames unchanged.

    Picamera2's format "RGB888" lies in memory as "bgr", its "BGR888" as "rgb". Raises ImageError
    for any other array, such as the four channels of "XRGB8888", and for None.
    """
    for index, item in enumerate(frames):
        if isinstance(item, Frame):
            yield item
        else:
            yield Frame(index, clock(), as_rgb(item, colour))


def as_rgb(pixels: NDArray[Any], colour: Colour) -> Pixels:
    """Return uint8 [h, w, 3] in RGB, of pixels in the order of `colour`.

    Raises ImageError for any other array, and for None, which some camera drivers return.
    """
    if not isinstance(pixels, np.ndarray):
        raise ImageError(
            f"a frame is {type(pixels).__name__}, expected an array of uint8 (height, width, 3): "
            "skip empty frames"
        )
    pixels = read_image(pixels)
    ordered = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if colour == "bgr" else pixels
    return np.asarray(ordered, np.uint8)


def ended(frames: object) -> AbstractContextManager[object]:
    """Close a generator when the block ends; it may hold a thread and a camera."""
    return closing(frames) if hasattr(frames, "close") else nullcontext()


# Single reads of a USB camera fail now and then. After 30 failed reads with 50 ms between them,
# 1.5 s, the camera counts as gone.
FAILURES, PAUSE = 30, 0.05
# Bytes a pixel, measured on frames of 66 megapixels: FFmpeg's, OpenCV's copy and the one in RGB.
_FRAME_BYTES = 14


def open_video(path: str | Path, every: int = 1, limits: ImageLimits = LIMITS) -> Iterator[Frame]:
    """Open a video file; return its frames, or the first of each `every` frames.

    The file is opened now, and closed after the last frame or with the generator. Raises ImageError
    for a file that is no video and for frames of more pixels than `limits` allow. The generator
    raises it for a video without a readable frame.
    """
    if every < 1:
        raise UsageError(f"every is {every}, allowed are 1 (all frames) and more")
    _check_video(Path(path))
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise ImageError(f"{path}: no video that OpenCV can read; convert it to MP4 (H.264)")
    width, height = _size(capture)
    most = min(limits.pixels, limits.memory // _FRAME_BYTES)
    if width * height > most:
        capture.release()
        raise ImageError(
            f"{path}: frames of {width}x{height} pixels, allowed are {most} in all; shrink it"
        )
    return _file_frames(capture, path, every)


def _check_video(path: Path) -> None:
    """Raise ImageError unless the file can be read: OpenCV gives no reason."""
    try:
        if not path.is_file():
            raise ImageError(f"{path}: no such video file")
        path.open("rb").close()
    except OSError as error:
        raise ImageError(f"{path}: {reason_of(error)}") from None


def _size(capture: cv2.VideoCapture) -> tuple[int, int]:
    sides = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
    width, height = (int(capture.get(side)) for side in sides)
    return width, height


def _file_frames(capture: cv2.VideoCapture, path: str | Path, every: int) -> Iterator[Frame]:
    # The first frame's position is 0 or one frame, depending on OpenCV's version.
    start = None
    try:
        for index in count():
            if not capture.grab():
                break
            position = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            start = position if start is None else start
            if index % every == 0:
                read, pixels = capture.retrieve()
                if not read or pixels is None:
                    break
                yield Frame(index, max(position - start, 0.0), as_rgb(pixels, "bgr"))
    finally:
        capture.release()
    if index == 0:
        raise ImageError(f"{path}: the video has no readable frame")


def camera_name(camera: str) -> str:
    """Return the name of a camera for messages: an address without its user and password."""
    return "camera " + re.sub(r"//[^?#]*@", "//", camera)


def open_camera(
    camera: str, clock: Clock = time.time, pause: Callable[[float], None] = time.sleep
) -> Iterator[Frame]:
    """Open a camera by number, device or address (rtsp://...); return its endless frames.

    Frames arrive at the camera's pace: read them through `latest`. The camera is opened now, and
    released with the generator. Raises ImageError for a camera that can't be opened. The generator
    raises it when the camera stops.
    """
    capture = _capture(camera)
    if not capture.isOpened():
        raise ImageError(
            f"{camera_name(camera)}: can't be opened; check that `ls /dev/video*` lists it, "
            "that no other program uses it and that you are in the group video. Raspberry Pi "
            "camera modules need --camera picamera2 (docs/streams.md)"
        )
    return _camera_frames(capture, camera, clock, pause)


def _capture(camera: str) -> cv2.VideoCapture:
    if "://" not in camera:
        return cv2.VideoCapture(int(camera) if camera.isdecimal() else camera)
    patience = int(1000 * TIMEOUT)
    times = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC)
    options = [number for each in times for number in (each, patience)]
    return cv2.VideoCapture(camera, cv2.CAP_FFMPEG, options)


def _camera_frames(
    capture: cv2.VideoCapture, camera: str, clock: Clock, pause: Callable[[float], None]
) -> Iterator[Frame]:
    index = failures = 0
    try:
        while failures < FAILURES:
            read, pixels = capture.read()
            if read and pixels is not None:
                yield Frame(index, clock(), as_rgb(pixels, "bgr"))
                index, failures = index + 1, 0
            else:
                failures += 1
                pause(PAUSE)
    finally:
        capture.release()
    raise ImageError(
        f"{camera_name(camera)}: stopped after {index} frames; check its cable and its power"
    )


# Seconds without a frame after which a camera counts as gone; OpenCV's own patience is as long.
TIMEOUT = 10.0
# Seconds that the end of a stream waits for its thread; a hanging read can't be ended.
PATIENCE = 2.0


class Mailbox:
    """Holds one frame between two threads: a new frame replaces the older one.

    Events keep their order, and come before the frame.
    """

    def __init__(self) -> None:
        """Begin empty."""
        self.dropped = 0
        self._changed = threading.Condition()
        self._frame: Frame | None = None
        self._events = deque[Event]()
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

    def tell(self, event: Event) -> None:
        """Put an event in."""
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        """Accept no more frames, because of `error` if there is one."""
        with self._changed:
            if not self._ended:
                self._ended, self._error = True, error
            self._changed.notify_all()

    def take(self, timeout: float) -> Frame | Event | None:
        """Take an event or the newest frame, waiting up to `timeout` seconds; None after the end.

        Raises the error that ended it, after the last frame, and TimeoutError.
        """
        with self._changed:
            if not self._changed.wait_for(self._is_ready, timeout):
                raise TimeoutError
            if self._events:
                return self._events.popleft()
            frame, self._frame = self._frame, None
            if frame is not None:
                return replace(frame, dropped=self.dropped)
            if self._error is not None:
                raise self._error
            return None

    def _is_ready(self) -> bool:
        return self._frame is not None or self._ended or bool(self._events)


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
        while isinstance(frame := box.take(timeout), Frame):
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
