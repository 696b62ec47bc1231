"""An image's format, size and cost from its bytes, before a decoder may allocate anything.

Only what every OpenCV from 4.6 on decodes alike passes: JPEG, PNG, WebP without animation, BMP.
Each reader walks the structure that a decoder walks: what a header states must lie in the file.
"""

import re
import struct
from importlib import import_module

from kedge_runtime.headers.header import CUT, Header, HeaderError

__all__ = ["READERS", "Header", "HeaderError", "read_header"]

# By the bytes that a file of the format begins with: the module with its `read(content) -> Header`,
# imported when the first such image comes.
READERS = {
    rb"\xff\xd8\xff": "jpeg",
    rb"\x89PNG\r\n\x1a\n": "png",
    rb"RIFF....WEBP": "webp",
    rb"BM": "bmp",
}


def read_header(content: bytes) -> Header:
    """Return format, size and cost of an encoded image.

    Raises HeaderError for another format, a size of zero, and an image that is not whole.
    """
    found = (name for start, name in READERS.items() if re.match(start, content, re.DOTALL))
    name = next(found, None)
    if name is None:
        raise HeaderError("no readable JPEG, PNG, WebP or BMP picture")
    try:
        header: Header = import_module(f"{__name__}.{name}").read(content)
    except (struct.error, IndexError):
        raise HeaderError(CUT) from None
    if min(header.width, header.height) < 1:
        raise HeaderError(f"a {header.form} of {header.width}x{header.height} pixels, it is empty")
    return header
