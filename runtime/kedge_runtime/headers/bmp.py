"""The header of a BMP: learn.microsoft.com/windows/win32/gdi/bitmap-storage."""

import struct

from kedge_runtime.headers.header import CUT, Header, HeaderError

_OS2 = 12  # bytes of the header of OS/2, whose sizes have 16 bits
_PACKED = frozenset({1, 2})  # BI_RLE8, BI_RLE4


def read(content: bytes) -> Header:
    """Read the header of OS/2 or of Windows, where rows from the top down have a height < 0.

    Raises HeaderError where the rows, which are padded to four bytes, don't lie in the file.
    """
    offset, size = struct.unpack_from("<II", content, 10)
    layout = "<HHHH" if size == _OS2 else "<iiHHI"
    width, height, _, bits, *packed = struct.unpack_from(layout, content, 18)
    row = (width * bits + 31) // 32 * 4
    if not _PACKED & set(packed) and offset + row * abs(height) > len(content):
        raise HeaderError(CUT)
    return Header("BMP", width, abs(height), content)
