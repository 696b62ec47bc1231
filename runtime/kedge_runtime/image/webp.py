"""The header of a WebP: developers.google.com/speed/webp/docs/riff_container."""

import struct
from collections.abc import Callable, Iterator

from kedge_runtime.image.header import CUT, HeaderError, ImageHeader, orientation

# Real files have less than ten: a header, a profile, the pixels, EXIF, XMP.
MAX_CHUNKS = 100
# A file system that lost a tail gives zeros, in whole blocks; libwebp decodes them.
_FILL = bytes(64)
_EXTENDED, _ALPHA, _ANIMATION = b"VP8X", b"ALPH", frozenset({b"ANIM", b"ANMF"})
_HAS_EXIF, _IS_ANIMATED = 0x08, 0x02
# Bytes a pixel beside the pixels, read off libwebp: RGBA and, without loss, its own ARGB.
_BESIDE_LOSSLESS, _BESIDE_ALPHA = 5, 6


def read(content: bytes) -> ImageHeader:
    """Walk the chunks; an extended file's canvas must be its frame's size."""
    (length,) = struct.unpack_from("<I", content, 4)
    end = length + 8
    if end > len(content) or content.endswith(_FILL, 0, end):
        raise HeaderError(CUT)
    chunks = _first_of_each(content, end)
    layout = content[12:16]
    kind = next((kind for kind in chunks if kind in _SIZES), b"")
    if not kind or layout not in (_EXTENDED, kind):
        raise HeaderError(CUT)
    frame = chunks[kind]
    width, height = _SIZES[kind](frame)
    flags = chunks[_EXTENDED][0] if layout == _EXTENDED else 0
    if layout == _EXTENDED and _canvas(chunks[_EXTENDED]) != (width, height):
        raise HeaderError(CUT)
    beside = _BESIDE_LOSSLESS if kind == b"VP8L" else _BESIDE_ALPHA if _ALPHA in chunks else 0
    exif = bytes(chunks.get(b"EXIF", b"")) if flags & _HAS_EXIF else b""
    return ImageHeader(
        "WebP",
        width,
        height,
        content,
        orientation(exif),
        beside * width * height,
        end - len(frame),
    )


def _first_of_each(content: bytes, end: int) -> dict[bytes, memoryview]:
    """Return the data of the first chunk of each kind. Raises HeaderError for an animation."""
    chunks: dict[bytes, memoryview] = {}
    for kind, data in _chunks(content, end):
        chunks.setdefault(kind, data)
    animated = _EXTENDED in chunks and chunks[_EXTENDED][0] & _IS_ANIMATED
    if animated or _ANIMATION & set(chunks):
        raise HeaderError("an animated WebP; give one frame of it")
    return chunks


def _chunks(content: bytes, end: int) -> Iterator[tuple[bytes, memoryview]]:
    at, view = 12, memoryview(content)
    for _ in range(MAX_CHUNKS):
        if at + 8 > end:
            return
        kind, size = struct.unpack_from("<4sI", content, at)
        if at + 8 + size > end:
            raise HeaderError(CUT)
        yield kind, view[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
    if at + 8 <= end:
        raise HeaderError(f"a WebP of more than {MAX_CHUNKS} chunks; save it anew")


def _vp8(data: memoryview) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    return width & 0x3FFF, height & 0x3FFF


def _vp8l(data: memoryview) -> tuple[int, int]:
    (bits,) = struct.unpack_from("<I", data, 1)
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1


def _canvas(data: memoryview) -> tuple[int, int]:
    width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (4, 7))
    return width, height


_SIZES: dict[bytes, Callable[[memoryview], tuple[int, int]]] = {b"VP8 ": _vp8, b"VP8L": _vp8l}
