"""Small encoded images, sound and unsound, for tests of what strangers send."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

# Smooth, so that lossy formats come close; other in every quarter, so that any turn shows.
ROWS, COLUMNS = np.mgrid[0:48, 0:64]
PIXELS = np.dstack([ROWS * 5, COLUMNS * 4, 255 - ROWS * 2 - COLUMNS * 2]).astype(np.uint8)


def encoded(form: str, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(file, form, **options)
    return file.getvalue()


JPEG = encoded("JPEG", quality=95)
PROGRESSIVE = encoded("JPEG", quality=95, progressive=True)
PNG = encoded("PNG")
WEBP = encoded("WEBP", quality=90)
LOSSLESS = encoded("WEBP", lossless=True)
BMP = encoded("BMP")
CMYK = encoded("JPEG", "CMYK", quality=95)
GREY = np.asarray(Image.fromarray(PIXELS).convert("L").convert("RGB"))
SCAN = JPEG.index(b"\xff\xda")


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def with_segment(marker: int, content: bytes) -> bytes:
    return JPEG[:2] + segment(marker, content) + JPEG[2:]


def exif(orientation: int, width: int = 0) -> bytes:
    """Return an EXIF segment's content; `width` is a further tag that lies about the size."""
    tags = [(0x0100, width), (0x0112, orientation)]
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4)


def jpeg_of(width: int, height: int) -> bytes:
    """Return the JPEG with another size in its frame."""
    at = JPEG.index(b"\xff\xc0") + 5
    return JPEG[:at] + struct.pack(">HH", height, width) + JPEG[at + 4 :]


def chunk(kind: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def png_of(width: int, height: int, data: bytes = b"", depth: int = 8, colour: int = 0) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", data or zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def zeros(count: int) -> bytes:
    """Return `count` zeros deflated, without ever holding them."""
    packer, block = zlib.compressobj(9), bytes(1 << 20)
    parts = [packer.compress(block) for _ in range(count >> 20)]
    return b"".join(parts) + packer.compress(bytes(count & 0xFFFFF)) + packer.flush()


def bmp_of(width: int, height: int, bits: int = 24, packed: int = 0, data: bytes = b"") -> bytes:
    palette = bytes(1024) if bits == 8 else b""
    offset = 54 + len(palette)
    head = struct.pack("<2sIHHI", b"BM", offset + len(data), 0, 0, offset)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, packed, len(data), 0, 0, 0, 0)
    return head + info + palette + data


def top_down() -> bytes:
    rows = PIXELS[:, :, ::-1].tobytes()
    return bmp_of(64, -48, data=rows)


def animation(form: str) -> bytes:
    frames = [Image.fromarray(PIXELS), Image.fromarray(PIXELS[::-1])]
    file = io.BytesIO()
    frames[0].save(file, form, save_all=True, append_images=frames[1:])
    return file.getvalue()


def wide(form: str, height: int, width: int, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(file, form, **options)
    return file.getvalue()


def flipped(content: bytes, seed: int) -> bytes:
    """Return the picture with one bit in two hundred bytes turned, its first 20 bytes kept."""
    generator, damaged = np.random.default_rng(seed), bytearray(content)
    for at in generator.integers(20, len(content), max(1, len(content) // 200)):
        damaged[at] ^= 1 << generator.integers(8)
    return bytes(damaged)


def many_scans() -> bytes:
    """Repeat the last scan of a progressive picture ten thousand times."""
    last = PROGRESSIVE.rindex(b"\xff\xda")
    return PROGRESSIVE[:-2] + PROGRESSIVE[last:-2] * 10_000 + b"\xff\xd9"


TURNS: dict[int, Callable[[Pixels], Pixels]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: lambda pixels: np.rot90(pixels),
}


def turned(orientation: int) -> Pixels:
    return TURNS[orientation](PIXELS) if orientation in TURNS else PIXELS


def ramp() -> Pixels:
    return np.repeat((COLUMNS * 4).astype(np.uint8)[..., None], 3, axis=2)


def sixteen() -> bytes:
    """Return a grey ramp of 16 bits as PNG stores it: a filter byte before each row."""
    rows = (COLUMNS * 4 * 257).astype(">u2")
    return zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
