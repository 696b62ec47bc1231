"""Decode image files to pixels, and check their cost before anything is read or allocated.

Images come from strangers. The file's size, its format and its stated dimensions are checked first,
so that a decompression bomb, a pipe or a device costs nothing.
"""

import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np

from kedge_runtime.arrays import Array, Pixels
from kedge_runtime.artefact.content import open_plain
from kedge_runtime.artefact.kinds import Orientation
from kedge_runtime.errors import ImageError, about, reason_of
from kedge_runtime.frozen import dataclass
from kedge_runtime.image.header import HeaderError, ImageHeader, read_header
from kedge_runtime.image.memory import reserve
from kedge_runtime.image.objects import Source, pillow_pixels, plain
from kedge_runtime.image.opencv import cv2

# Height and width of a JPEG as stored -> 1, 2, 4 or 8: the divisor of its sides when decoded.
Reduction = Callable[[int, int], int]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})

# 64 MiB: twice the largest JPEG that a phone of 50 megapixels writes.
MAX_BYTES = 64 << 20
# 64 megapixels, 8192x8192: bounds the time.
MAX_PIXELS = 64 << 20
# 320 MiB, of file and decoder together: a JPEG of 50 megapixels and 34 MiB, which is the largest
# that phones write. A Raspberry Pi Zero 2 W has 512 MB, 416 MiB of them for programs.
MAX_MEMORY = 320 << 20

# OpenCV from 4.11 on decodes to RGB itself; of an older one kedge swaps the channels.
_RGB: int = getattr(cv2, "IMREAD_COLOR_RGB", 0)
_COLOURS = {
    1: _RGB or cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2 | (_RGB or cv2.IMREAD_COLOR),
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4 | (_RGB or cv2.IMREAD_COLOR),
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8 | (_RGB or cv2.IMREAD_COLOR),
}
_BATCH = "; for a batch, give list(array)"
_ORIENTATIONS = {"exif": 0, "ignore": cv2.IMREAD_IGNORE_ORIENTATION}
# EXIF orientation -> function that turns stored pixels, [h, w, 3], upright.
_TURNS: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: pixels[::-1].transpose(1, 0, 2),
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: lambda pixels: pixels[:, ::-1].transpose(1, 0, 2),
}


@dataclass(frozen=True)
class ImageLimits:
    """Limits of what one image may cost.

    `bytes`: size of the file. `pixels`: height times width, as the header states. `memory`: peak
    bytes of file and decoder together, estimated from the header.
    """

    bytes: int = MAX_BYTES
    pixels: int = MAX_PIXELS
    memory: int = MAX_MEMORY


LIMITS = ImageLimits()


def full_size(height: int, width: int) -> int:
    """Return 1: decode every pixel of a JPEG of any size."""
    return 1


def read_image(
    source: Source,
    orientation: Orientation = "exif",
    *,
    limits: ImageLimits = LIMITS,
    reduction: Reduction = full_size,
) -> Pixels:
    """Return uint8 [height, width, 3] in RGB from a path, an open file, bytes, or an RGB array.

    A Pillow image is turned by its EXIF orientation as a file is. Only JPEGs in files and bytes are
    reduced. Raises ImageError when the source holds no complete image, or exceeds `limits`. The
    limits do not apply to an array, and of them only `pixels` to a Pillow image.
    """
    image = plain(source, limits.bytes)
    if isinstance(image, np.ndarray):
        return _check_pixels(image)
    if not isinstance(image, Path | bytes):
        pixels, number = pillow_pixels(image, limits.pixels)
        return _check_pixels(_TURNS[number if orientation == "exif" else 1](pixels))
    with about(image if isinstance(image, Path) else "the image"):
        content = _read(image, limits) if isinstance(image, Path) else image
        return _decode(content, orientation, limits, reduction)


def is_readable(path: Path) -> bool:
    """Return whether a file holds a complete image within the default limits."""
    try:
        read_image(path)
    except ImageError:
        return False
    return True


def read_bytes(path: Path, limits: ImageLimits = LIMITS) -> bytes:
    """Return a file's content. Raises ImageError for an unreadable, special or too large file."""
    with about(path):
        return _read(path, limits)


def _read(path: Path, limits: ImageLimits) -> bytes:
    try:
        status = path.stat()
        _check_mode(status.st_mode)
        _check_bytes(status.st_size, limits)
        with open_plain(path) as file:
            # No more than was checked: a file may grow, and some in /proc state no size.
            return file.read(status.st_size)
    except OSError as error:
        raise ImageError(reason_of(error)) from None
    except ValueError as error:
        raise ImageError(f"invalid file name ({error})") from None


def _decode(
    content: bytes, orientation: Orientation, limits: ImageLimits, reduction: Reduction
) -> Pixels:
    """Decode JPEG, PNG, WebP or BMP bytes to upright RGB."""
    header = _check_content(content, limits)
    by = reduction(header.height, header.width) if header.format == "JPEG" else 1
    _check_memory(header, header.memory(by), limits)
    reserve(header.memory(by))
    # OpenCV's versions differ in which EXIF they read: kedge turns what it can itself.
    turned = orientation if header.orientation is None else "ignore"
    pixels = _call_decoder(header, _COLOURS[by] | _ORIENTATIONS[turned])
    rgb = np.asarray(pixels if _RGB else _swapped(pixels), np.uint8)
    turn = _TURNS[(header.orientation or 1) if orientation == "exif" else 1]
    return np.ascontiguousarray(turn(rgb))


def _swapped(pixels: Array) -> Array:
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)


def _call_decoder(header: ImageHeader, flags: int) -> Array:
    # imdecode returns None for a truncated JPEG, where imread fills it with grey and goes on.
    try:
        pixels = cv2.imdecode(np.frombuffer(header.encoded, np.uint8), flags)
    except cv2.error as error:
        raise ImageError(f"can't be decoded ({error.err})") from None
    if pixels is None:
        raise ImageError(f"a damaged {header.format} image, no decoder can read it")
    return pixels


def _check_content(content: bytes, limits: ImageLimits) -> ImageHeader:
    if not content:
        raise ImageError("the file is empty")
    _check_bytes(len(content), limits)
    try:
        header = read_header(content)
    except HeaderError as error:
        raise ImageError(str(error)) from None
    if header.width * header.height > limits.pixels:
        raise ImageError(
            f"a {header.format} of {header.width}x{header.height} pixels, "
            f"allowed are {limits.pixels} in all; shrink it first"
        )
    return header


def _check_memory(header: ImageHeader, memory: int, limits: ImageLimits) -> None:
    if memory > limits.memory:
        mib, allowed = memory / (1 << 20), limits.memory / (1 << 20)
        raise ImageError(
            f"a {header.format} of {header.width}x{header.height} pixels, "
            f"decoding it takes {mib:.1f} MiB, allowed are {allowed:.1f} MiB; shrink it first"
        )


def _check_bytes(size: int, limits: ImageLimits) -> None:
    if size > limits.bytes:
        raise ImageError(f"{size} bytes, allowed are {limits.bytes}; shrink it first")


def _check_mode(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise ImageError("is a directory")
    if not stat.S_ISREG(mode):
        raise ImageError("a pipe, a socket or a device; images are read from files")


def _check_pixels(pixels: Array) -> Pixels:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ImageError(
            f"got an array of {pixels.dtype} {pixels.shape}, "
            "expected uint8 (height, width, 3) in RGB order"
            f"{_BATCH if pixels.ndim == 4 else ''}"
        )
    return np.ascontiguousarray(pixels)
