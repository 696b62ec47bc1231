"""An image's format, size and cost from its bytes, before a decoder may allocate anything.

Only what every OpenCV from 4.6 on decodes alike passes: JPEG, PNG, WebP without animation, BMP.
Each reader walks the structure that a decoder walks: what a header states must lie in the file.
"""

import re
import struct
from collections.abc import Callable

from kedge_runtime.headers import bmp, jpeg, png, webp
from kedge_runtime.headers.header import CUT, Header, HeaderError

__all__ = ["READERS", "Header", "HeaderError", "read_header"]

# By the bytes that a file of the format begins with.
READERS: dict[bytes, Callable[[bytes], Header]] = {
    rb"\xff\xd8\xff": jpeg.read,
    rb"\x89PNG\r\n\x1a\n": png.read,
    rb"RIFF....WEBP": webp.read,
    rb"BM": bmp.read,
}


def read_header(content: bytes) -> Header:
    """Return format, size and cost of an encoded image.

    Raises HeaderError for another format, a size of zero, and an image that is not whole.
    """
    found = (read for start, read in READERS.items() if re.match(start, content, re.DOTALL))
    reader = next(found, None)
    if reader is None:
        raise HeaderError("no readable JPEG, PNG, WebP or BMP picture")
    try:
        header = reader(content)
    except (struct.error, IndexError):
        raise HeaderError(CUT) from None
    if min(header.width, header.height) < 1:
        raise HeaderError(f"a {header.form} of {header.width}x{header.height} pixels, it is empty")
    return header
