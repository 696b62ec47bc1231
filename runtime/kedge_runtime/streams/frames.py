"""What every source of a stream gives."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kedge_runtime.contract import Colour
from kedge_runtime.errors import ImageError
from kedge_runtime.image import Pixels, read_image

Clock = Callable[[], float]


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a stream.

    `index` counts from 0 what the source gave, dropped frames included. `seconds`: of a video since
    its first frame, of anything live since 1970. `pixels`: RGB uint8 [h, w, 3]. `dropped`: how many
    frames were passed over so far because newer ones came before they could be taken.
    """

    index: int
    seconds: float
    pixels: Pixels
    dropped: int = 0


def numbered(
    frames: Iterable[Frame | NDArray[Any]], colour: Colour = "rgb", clock: Clock = time.time
) -> Iterator[Frame]:
    """Yield arrays, uint8 [h, w, 3] in the order of `colour`, as frames; frames pass as they are.

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

    Raises ImageError for any other array, and for None: a camera's driver gives it now and then.
    """
    if not isinstance(pixels, np.ndarray):
        raise ImageError(
            f"a frame is {type(pixels).__name__}, expected an array of uint8 (height, width, 3): "
            "leave empty frames out"
        )
    pixels = read_image(pixels)
    ordered = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if colour == "bgr" else pixels
    return np.asarray(ordered, np.uint8)


def ended(frames: object) -> AbstractContextManager[object]:
    """Close a generator when the block ends: behind it may be a thread and a camera."""
    return closing(frames) if hasattr(frames, "close") else nullcontext()
