"""Read a Raspberry Pi camera module by Picamera2: `--camera picamera2`, or `picamera2:1`.

Picamera2 comes with the system (`apt install python3-picamera2`): libcamera, which it stands on, is
in no package index.
"""

import time
from collections.abc import Iterator
from importlib import import_module
from itertools import count
from typing import Any

from kedge_runtime.artefact.kinds import Colour
from kedge_runtime.errors import ImageError, UsageError, one_line
from kedge_runtime.streams.sources import Clock, Frame, as_rgb

NAME = "picamera2"
SIZE = (640, 480)  # enough for a model of 224x224 pixels
# libcamera names the bytes of a pixel in reverse: its "RGB888" lies in memory as BGR, as OpenCV's.
FORMAT = "RGB888"
COLOUR: Colour = "bgr"
# Picamera2 raises IndexError for a camera that isn't there, RuntimeError for all else.
FAULTS = (RuntimeError, IndexError, OSError)


def open_picamera2(camera: str, clock: Clock = time.time) -> Iterator[Frame]:
    """Open a camera module by `picamera2` or `picamera2:N`; return its endless frames.

    The camera is opened now, and released with the generator. Raises UsageError for another name
    and without Picamera2, ImageError for a camera that can't be opened. The generator raises
    ImageError when the camera stops.
    """
    _, _, number = camera.partition(":")
    if not (number or "0").isdecimal():
        raise UsageError(f"camera {camera}: expected {NAME}, or a number behind it, as {NAME}:1")
    opened = None
    try:
        opened = _library().Picamera2(int(number or "0"))
        opened.configure(opened.create_video_configuration(main={"format": FORMAT, "size": SIZE}))
        opened.start()
    except FAULTS as error:
        if opened is not None:
            opened.close()
        raise ImageError(
            f"camera {camera}: can't be opened ({one_line(error)}); check that "
            "`rpicam-hello --list-cameras` lists it and that no other program uses it"
        ) from None
    return _frames(opened, camera, clock)


def _library() -> Any:
    try:
        return import_module(NAME)
    except ModuleNotFoundError:
        raise UsageError(
            f"{NAME} isn't installed: sudo apt install python3-picamera2, and use an environment "
            "made with python3 -m venv --system-site-packages (docs/pi.md)"
        ) from None


def _frames(opened: Any, camera: str, clock: Clock) -> Iterator[Frame]:
    index = 0
    try:
        for index in count():
            yield Frame(index, clock(), as_rgb(opened.capture_array("main"), COLOUR))
    except FAULTS as error:
        raise ImageError(
            f"camera {camera}: stopped after {index} frames ({one_line(error)}); check its cable"
        ) from None
    finally:
        opened.stop()
        opened.close()
