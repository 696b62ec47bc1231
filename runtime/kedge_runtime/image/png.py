"""Read the header of a PNG: https://www.w3.org/TR/png-3/, chapter 5."""

import struct
from collections.abc import Iterator

from kedge_runtime.frozen import dataclass
from kedge_runtime.image.header import CUT, HeaderError, ImageHeader, orientation

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Bytes of a chunk beside its data: size, kind, CRC.
_FRAME = 12
_IHDR = 13
# Encoders write pixels by 8 KB or more; the largest file has 8192 of such chunks.
MAX_CHUNKS = 1 << 16
# Samples of a pixel by colour type, table 11.1.
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Deflate expands by no more (https://zlib.net/zlib_tech.html): 258 bytes for two bits.
_EXPANSION = 1032


@dataclass(frozen=True)
class _Chunk:
    """A chunk's place in the file, its frame included."""

    kind: bytes
    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start - _FRAME

    @property
    def critical(self) -> bool:
        """Whether decoding needs it: bit 5 of the kind's first byte."""
        return not self.kind[0] & 0x20


def read(content: bytes) -> ImageHeader:
    """Walk the chunks to IEND.

    The decoder gets the critical chunks only. It would inflate texts and profiles, 8 MB out of each
    8 KB, and OpenCV does not need them.
    """
    chunks = tuple(_chunks(content))
    kinds = {chunk.kind: chunk for chunk in chunks}
    if chunks[0].kind != b"IHDR" or chunks[0].size != _IHDR:
        raise HeaderError(CUT)
    if b"acTL" in kinds:
        raise HeaderError("an animated PNG; give one frame of it")
    width, height = _size(content, sum(c.size for c in chunks if c.kind == b"IDAT"))
    exif = kinds.get(b"eXIf")
    turn = orientation(content[exif.start + 8 : exif.end - 4]) if exif else 1
    encoded = _critical(content, chunks)
    # OpenCV 4.11 and later copy one chunk at a time, and keep palettes.
    copied = sum(chunk.size for chunk in chunks if chunk.critical)
    return ImageHeader("PNG", width, height, encoded, turn, copied=copied)


def _chunks(content: bytes) -> Iterator[_Chunk]:
    at = len(_SIGNATURE)
    for _ in range(MAX_CHUNKS):
        size, kind = struct.unpack_from(">I4s", content, at)
        chunk = _Chunk(kind, at, at + _FRAME + size)
        if chunk.end > len(content):
            raise HeaderError(CUT)
        yield chunk
        if kind == b"IEND":
            return
        at = chunk.end
    raise HeaderError(f"a PNG of more than {MAX_CHUNKS} chunks; save it anew")


def _size(content: bytes, packed: int) -> tuple[int, int]:
    """Return width and height. Raises HeaderError where `packed` bytes can't hold so many rows."""
    width, height, depth, colour = struct.unpack_from(">IIBB", content, len(_SIGNATURE) + 8)
    row = (width * depth * _SAMPLES.get(colour, 0) + 7) // 8
    if row * height > packed * _EXPANSION:
        raise HeaderError(CUT)
    return width, height


def _critical(content: bytes, chunks: tuple[_Chunk, ...]) -> bytes:
    if all(chunk.critical for chunk in chunks):
        return content
    parts = (content[chunk.start : chunk.end] for chunk in chunks if chunk.critical)
    return b"".join((_SIGNATURE, *parts))
