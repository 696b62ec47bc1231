"""A picture's format and size from its first bytes, before a decoder may allocate anything.

Only what every OpenCV from 4.6 on decodes alike is let through: JPEG, PNG, WebP without animation,
BMP. Each reader knows what its format needs to be whole, too: libwebp takes a tail of zeros for
pixels, and libjpeg goes on to the end of the buffer for want of an end marker.
"""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

from kedge_runtime.exif import orientation

# A JPEG marker's code: frames that carry the size (SOFn, ITU-T T.81 table B.1), and the rest.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL = frozenset({0xC0, 0xC1})
_BARE = frozenset({0x01, *range(0xD0, 0xD8)})
_SCAN, _END = b"\xff\xda", b"\xff\xd9"
_MARKER = re.compile(rb"\xff+([^\x00\xff])")
# Real progressive files have about ten scans; each makes the decoder walk the whole picture.
MAX_SCANS = 100

_PNG_END = b"IEND\xaeB`\x82"
_CUT = "cut short or damaged; copy it again"


@dataclass(frozen=True)
class Header:
    """What the first bytes claim; `width` and `height` in pixels as stored, before EXIF.

    `orientation`: EXIF's, 1..8, of a WebP; other formats are left to the decoder.
    """

    form: str
    width: int
    height: int
    orientation: int = 1


class HeaderError(ValueError):
    """Why there is no picture in the bytes; the message has no file name yet."""


def read_header(content: bytes) -> Header:
    """Return format and size of an encoded picture.

    Raises HeaderError for another format, a size of nought, and a picture that is not whole.
    """
    found = (read for start, read in READERS.items() if re.match(start, content, re.DOTALL))
    reader = next(found, None)
    if reader is None:
        raise HeaderError("no readable JPEG, PNG, WebP or BMP picture")
    try:
        header = reader(content)
    except (struct.error, IndexError):
        raise HeaderError(_CUT) from None
    if min(header.width, header.height) < 1:
        raise HeaderError(f"a {header.form} of {header.width}x{header.height} pixels, it is empty")
    return header


def _jpeg(content: bytes) -> Header:
    """Walk the segments to the frame's size, then look for the end behind the first scan."""
    at, frame = 2, b""
    while marker := _MARKER.search(content, at):
        code, at = marker[1][0], marker.end()
        if code == _SCAN[1]:
            break
        if code in _BARE:
            continue
        if code in _FRAMES and not frame:
            frame = content[at - 1 : at + 8]
        at += max(2, *struct.unpack_from(">H", content, at))
    _check_scans(content, at, frame)
    height, width = struct.unpack_from(">HH", frame, 4)
    return Header("JPEG", width, height)


def _check_scans(content: bytes, at: int, frame: bytes) -> None:
    """Refuse a JPEG without an end, and one of too many scans; the first begins at `at`.

    Thumbnails in EXIF end like pictures, so only what lies behind the scan counts; cameras append
    further pictures and films, so what follows the end doesn't.
    """
    if not (content.endswith(_END) and len(content) > at + 2) and content.find(_END, at) < 0:
        raise HeaderError(_CUT)
    # A first scan with all components is the only one, unless the picture is progressive.
    if frame[0] in _SEQUENTIAL and content[at + 2] == frame[8]:
        return
    if content.count(_SCAN, at, content.find(_END, at)) >= MAX_SCANS:
        raise HeaderError(f"a JPEG of more than {MAX_SCANS} scans; save it anew")


def _png(content: bytes) -> Header:
    kind, width, height = struct.unpack_from(">4sII", content, 12)
    if kind != b"IHDR" or _PNG_END not in content:
        raise HeaderError(_CUT)
    return Header("PNG", width, height)


def _webp(content: bytes) -> Header:
    """Read any of the three layouts: developers.google.com/speed/webp/docs/riff_container."""
    (length,) = struct.unpack_from("<I", content, 4)
    if length + 8 > len(content) or content.endswith(_WEBP_FILL, 0, length + 8):
        raise HeaderError(_CUT)
    layout = content[12:16]
    if layout not in _WEBP_SIZES:
        raise HeaderError(_CUT)
    return Header("WebP", *_WEBP_SIZES[layout](content), orientation(_webp_exif(content)))


# A file system that lost a tail gives zeros, in whole blocks; libwebp decodes them.
_WEBP_FILL = bytes(64)


# Real files have less than ten: a header, a profile, the pixels, EXIF, XMP.
MAX_CHUNKS = 100


def _webp_exif(content: bytes) -> bytes:
    """Return what the header says lies among the chunks, or nothing."""
    at, chunks = 12, 0
    has_exif = content[12:16] == b"VP8X" and content[20] & 8
    while has_exif and at + 8 <= len(content) and chunks < MAX_CHUNKS:
        kind, size = struct.unpack_from("<4sI", content, at)
        if kind == b"EXIF":
            return content[at + 8 : at + 8 + size]
        at, chunks = at + 8 + size + size % 2, chunks + 1
    return b""


def _vp8(content: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", content, 26)
    return width & 0x3FFF, height & 0x3FFF


def _vp8l(content: bytes) -> tuple[int, int]:
    (bits,) = struct.unpack_from("<I", content, 21)
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1


def _vp8x(content: bytes) -> tuple[int, int]:
    if content[20] & 2:
        raise HeaderError("an animated WebP; give one frame of it")
    width, height = (int.from_bytes(content[at : at + 3], "little") + 1 for at in (24, 27))
    return width, height


_WEBP_SIZES: dict[bytes, Callable[[bytes], tuple[int, int]]] = {
    b"VP8 ": _vp8,
    b"VP8L": _vp8l,
    b"VP8X": _vp8x,
}


def _bmp(content: bytes) -> Header:
    """Read the header of OS/2 (12 bytes) or of Windows, where rows from the top down are < 0."""
    (size,) = struct.unpack_from("<I", content, 14)
    width, height = struct.unpack_from("<HH" if size == 12 else "<ii", content, 18)
    return Header("BMP", width, abs(height))


# By the bytes that a file of the format begins with.
READERS: dict[bytes, Callable[[bytes], Header]] = {
    rb"\xff\xd8\xff": _jpeg,
    rb"\x89PNG\r\n\x1a\n": _png,
    rb"RIFF....WEBP": _webp,
    rb"BM": _bmp,
}
