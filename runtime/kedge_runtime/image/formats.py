"""Read an image's format, size and cost from its bytes, before a decoder may allocate anything.

JPEG, PNG, WebP without animation and BMP are allowed: every OpenCV from 4.6 on decodes them alike.
Each reader walks the same structure as a decoder: what a header states must lie in the file.
"""

import re
import struct
from importlib import import_module

from kedge_runtime.image.header import CUT, HeaderError, ImageHeader

# First bytes of a file -> module with `read(content) -> ImageHeader`, imported on first use.
READERS = {
    rb"\xff\xd8\xff": "jpeg",
    rb"\x89PNG\r\n\x1a\n": "png",
    rb"RIFF....WEBP": "webp",
    rb"BM": "formats",
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
