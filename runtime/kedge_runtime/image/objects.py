"""Take images as Python programs hold them: open files and Pillow images.

Pillow is never imported: an image of it exists only where the program has imported it.
"""

import os
import sys
from pathlib import Path
from typing import Any, Protocol, TypeGuard, runtime_checkable

import numpy as np

from kedge_runtime.arrays import Array, Pixels
from kedge_runtime.errors import ImageError, about, one_line

ALLOWED = (
    "a path, bytes, a file opened with 'rb', a Pillow image, "
    "or an array of uint8 (height, width, 3)"
)
_ORIENTATION = 0x0112  # the number of EXIF's tag
# Their pixels have no stated range. A program knows its own: 0..1, 0..65535 or another.
_RANGELESS = ("I", "F")


@runtime_checkable
class BinaryFile(Protocol):
    """A file opened with 'rb', a BytesIO, or another object whose `read` gives bytes."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, none at the end."""


class PillowImage(Protocol):
    """What kedge uses of PIL.Image.Image."""

    @property
    def mode(self) -> str:
        """The kind of pixels, e.g. `RGB`."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""

    def convert(self, mode: str, /) -> Any:
        """Return the image in another mode."""

    def getexif(self) -> Any:
        """Return the EXIF tags by number."""


Encoded = bytes | bytearray | memoryview
Source = str | os.PathLike[str] | Encoded | BinaryFile | PillowImage | Array
# What is left when files are read: `plain` returns it.
Plain = Path | bytes | PillowImage | Array


def plain(source: Source, most: int) -> Plain:
    """Return an image's path, bytes, array or Pillow image; read a file object to its end.

    A file object is read from its start if it can seek, and stays open. At most `most` + 1 bytes
    are read. Raises ImageError for any other object, and for a file object that can't be read.
    """
    if isinstance(source, np.ndarray) or is_pillow(source):
        return source
    if isinstance(source, Encoded):
        return bytes(source)
    if isinstance(source, str | os.PathLike):
        return _path(source)
    if isinstance(source, BinaryFile):
        return _read(source, most)
    raise ImageError(f"got {_kind(source)}, allowed are {ALLOWED}")


def _kind(source: object) -> str:
    name = type(source).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}" if source is not None else "None"


def _path(source: str | os.PathLike[str]) -> Path:
    path = os.fspath(source)
    if isinstance(path, str):
        return Path(path)
    raise ImageError("got a path of bytes, allowed are paths of str: use os.fsdecode")


def _read(file: Any, most: int) -> bytes:
    parts, room = [], most + 1
    with about(_title(file)):
        try:
            if _can_seek(file):
                file.seek(0)
            while room > 0 and (part := file.read(room)):
                parts.append(_checked(part))
                room -= len(part)
        # Files of zips, of networks and of other libraries have errors of their own.
        except Exception as error:
            if isinstance(error, ImageError):
                raise
            raise ImageError(f"can't be read: {one_line(error)}") from None
    return b"".join(parts)


def _can_seek(file: Any) -> bool:
    return hasattr(file, "seek") and (not hasattr(file, "seekable") or file.seekable())


def _checked(part: Any) -> bytes:
    if isinstance(part, Encoded):
        return bytes(part)
    raise ImageError(f"its read() gave {_kind(part)}, expected bytes; open it with 'rb'")


def _title(file: object) -> str:
    name = getattr(file, "name", None)
    return name if isinstance(name, str) else "the file object"


def is_pillow(source: object) -> TypeGuard[PillowImage]:
    """Whether an object is an image of Pillow."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(source, module.Image)


def pillow_pixels(image: PillowImage, most: int) -> tuple[Pixels, int]:
    """Return a Pillow image as stored, RGB uint8 [h, w, 3], and its EXIF orientation, 1 to 8.

    Transparency is dropped, and 16-bit grey is cut to 8 bits, as in files. Raises ImageError for
    more than `most` pixels, a mode without a stated range, and an image that Pillow can't read.
    """
    with about("the Pillow image"):
        width, height = image.size
        if image.mode in _RANGELESS:
            raise ImageError(
                f"mode {image.mode} has no stated range; "
                "scale it to 0..255 and call convert('L') first"
            )
        if width * height > most:
            raise ImageError(f"{width}x{height} pixels, allowed are {most} in all; shrink it first")
        try:
            number = image.getexif().get(_ORIENTATION, 1)
            pixels = _rgb(image)
        # Pillow opens lazily, and its decoders raise whatever they meet.
        except Exception as error:
            raise ImageError(f"Pillow can't read it: {one_line(error)}") from None
    return pixels, number if isinstance(number, int) and 1 <= number <= 8 else 1


def _rgb(image: PillowImage) -> Pixels:
    if not image.mode.startswith("I;16"):
        return np.asarray(image.convert("RGB"), np.uint8)
    grey = (np.asarray(image) >> 8).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)
