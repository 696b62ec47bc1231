"""From a file's bytes to pixels."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kedge_runtime.contract import Orientation
from kedge_runtime.errors import ImageError

Pixels = NDArray[np.uint8]
Source = str | Path | bytes | NDArray[Any]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})

_FLAGS = {
    "exif": cv2.IMREAD_COLOR,
    "ignore": cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION,
}


def read_image(source: Source, orientation: Orientation = "exif") -> Pixels:
    """Return uint8 [height, width, 3] in RGB from a path, encoded bytes, or an RGB array.

    Raises ImageError when there is no picture in it.
    """
    if isinstance(source, np.ndarray):
        return _check_pixels(source)
    if isinstance(source, bytes):
        return decode(source, orientation, "the picture")
    return decode(read_bytes(Path(source)), orientation, str(source))


def read_bytes(path: Path) -> bytes:
    """Return a file's content. Raises ImageError when it can't be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: {(error.strerror or str(error)).lower()}") from None


def decode(content: bytes, orientation: Orientation, name: str) -> Pixels:
    """Decode JPEG, PNG, WebP or BMP bytes to RGB; `name` heads the message of an ImageError."""
    if not content:
        raise ImageError(f"{name}: the file is empty")
    # imdecode answers None for a truncated JPEG, where imread fills it with grey and goes on.
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), _FLAGS[orientation])
    except cv2.error as error:
        raise ImageError(f"{name}: can't be decoded ({error.err})") from None
    if pixels is None:
        raise ImageError(f"{name}: no readable JPEG, PNG, WebP or BMP picture")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels), np.uint8)


def _check_pixels(pixels: NDArray[Any]) -> Pixels:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ImageError(
            f"got an array of {pixels.dtype} {pixels.shape}, "
            "expected uint8 (height, width, 3) in RGB order"
        )
    return np.ascontiguousarray(pixels)
