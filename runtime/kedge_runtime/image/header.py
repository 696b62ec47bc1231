"""Read an image's format, size, cost and orientation before a decoder may allocate anything.

JPEG, PNG, WebP without animation and BMP are allowed: every OpenCV from 4.6 on decodes them alike.
Each reader walks the same structure as a decoder: what a header states must lie in the file.
"""

import re
import struct
from dataclasses import field
from importlib import import_module

from kedge_runtime.frozen import dataclass

# CIPA DC-008 (EXIF 2.32): a TIFF file, in which tag 0x0112 of the first folder is the orientation.
_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_ORIENTATION = 0x0112


def orientation(exif: bytes) -> int:
    """Return the EXIF orientation, 1 (upright) to 8; 1 where EXIF is damaged or states none."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = _ORDERS.get(tiff[:4])
    try:
        value = _entry(tiff, order) if order else 1
    except struct.error:
        # Decoders accept images with damaged EXIF, too.
        return 1
    return value if 1 <= value <= 8 else 1


def _entry(tiff: bytes, order: str) -> int:
    (at,) = struct.unpack_from(f"{order}I", tiff, 4)
    (count,) = struct.unpack_from(f"{order}H", tiff, at)
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, value = struct.unpack_from(f"{order}H6xH", tiff, entry)
        if tag == _ORIENTATION:
            return int(value)
    return 1


CUT = "cut short or damaged; copy it again"
CHANNELS = 3  # OpenCV decodes all formats to BGR, uint8


class HeaderError(ValueError):
    """Bytes that hold no complete image; the message has no file name."""


@dataclass(frozen=True)
class ImageHeader:
    """Format, size and decoding cost of an encoded image.

    `width`, `height`: pixels as stored, before EXIF. `encoded`: the bytes for the decoder.
    `orientation`: EXIF's, 1..8; None leaves it to the decoder. `beside`: bytes that the decoder
    holds until the pixels are decoded, such as coefficients. `copied`: bytes of the file that it
    copies.
    """

    format: str
    width: int
    height: int
    encoded: bytes = field(repr=False)
    orientation: int | None = 1
    beside: int = 0
    copied: int = 0

    def memory(self, by: int = 1) -> int:
        """Return the peak bytes of file and decoder when the sides are divided by `by`, 1..8.

        OpenCV's Python binding copies the pixels when the decoder is done, and so does a turn.
        """
        pixels = CHANNELS * -(-self.width // by) * -(-self.height // by)
        return len(self.encoded) + self.copied + pixels + max(pixels, self.beside)


# First bytes of a file -> module with `read(content) -> ImageHeader`, imported on first use.
READERS = {
    rb"\xff\xd8\xff": "jpeg",
    rb"\x89PNG\r\n\x1a\n": "png",
    rb"RIFF....WEBP": "webp",
    rb"BM": "header",
}


def read_header(content: bytes) -> ImageHeader:
    """Return format, size and cost of an encoded image.

    Raises HeaderError for another format, a size of zero, and an image that is not whole.
    """
    matches = (name for start, name in READERS.items() if re.match(start, content, re.DOTALL))
    name = next(matches, None)
    if name is None:
        raise HeaderError("no readable JPEG, PNG, WebP or BMP image")
    try:
        header: ImageHeader = import_module(f"{__package__}.{name}").read(content)
    except (struct.error, IndexError):
        raise HeaderError(CUT) from None
    if min(header.width, header.height) < 1:
        raise HeaderError(
            f"a {header.format} of {header.width}x{header.height} pixels, it is empty"
        )
    return header


# BMP: learn.microsoft.com/windows/win32/gdi/bitmap-storage.
_OS2 = 12  # bytes of the header of OS/2, whose sizes have 16 bits
_PACKED = frozenset({1, 2})  # BI_RLE8, BI_RLE4


def read(content: bytes) -> ImageHeader:
    """Read the header of a BMP of OS/2 or Windows; rows from the top down have a height < 0.

    Raises HeaderError where the rows, which are padded to four bytes, don't lie in the file.
    """
    offset, size = struct.unpack_from("<II", content, 10)
    layout = "<HHHH" if size == _OS2 else "<iiHHI"
    width, height, _, bits, *packed = struct.unpack_from(layout, content, 18)
    row = (width * bits + 31) // 32 * 4
    if not _PACKED & set(packed) and offset + row * abs(height) > len(content):
        raise HeaderError(CUT)
    return ImageHeader("BMP", width, abs(height), content)
