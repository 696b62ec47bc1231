"""A corpus of hostile pictures, made from a seed, and the run that every one must survive.

As a script it writes the corpus into a folder, reads each picture with `read_image` in this one
process under a ceiling of memory, reads a good picture after each, and prints a JSON list:

    python tests/hostile_images.py FOLDER

A case is bytes, or a function that makes a file of another kind, and what must come of it: the
words of an ImageError, or the right pixels (within a tolerance, the formats here are lossy).
"""

import io
import json
import os
import resource
import socket
import struct
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kedge_runtime.bench import peak_memory
from kedge_runtime.errors import ImageError
from kedge_runtime.image import read_image

Pixels = NDArray[np.uint8]
Make = bytes | Callable[[Path], None]

CEILING = 3 << 30  # bytes of address space; libraries reserve much of it without touching it

# Smooth, so that lossy formats come close; other in every quarter, so that any turn shows.
ROWS, COLUMNS = np.mgrid[0:48, 0:64]
PIXELS = np.dstack([ROWS * 5, COLUMNS * 4, 255 - ROWS * 2 - COLUMNS * 2]).astype(np.uint8)


@dataclass(frozen=True)
class Case:
    """What is read, and what must come: `error`, words of the message, or `pixels`, or either.

    With neither, damage may go unseen: any picture of the header's size or any ImageError will do.
    """

    make: Make
    error: str = ""
    pixels: Pixels | None = None
    name: str = "picture.jpg"


def _encoded(form: str, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(file, form, **options)
    return file.getvalue()


JPEG = _encoded("JPEG", quality=95)
PROGRESSIVE = _encoded("JPEG", quality=95, progressive=True)
PNG = _encoded("PNG")
WEBP = _encoded("WEBP", quality=90)
LOSSLESS = _encoded("WEBP", lossless=True)
BMP = _encoded("BMP")
CMYK = _encoded("JPEG", "CMYK", quality=95)
GREY = np.asarray(Image.fromarray(PIXELS).convert("L").convert("RGB"))
SCAN = JPEG.index(b"\xff\xda")

CUT, NOT_READABLE, TOO_MANY = "cut short or damaged", "no readable JPEG", "pixels, allowed are"
EMPTY, DAMAGED = "pixels, it is empty", "no decoder can read it"


def _segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def _with_segment(marker: int, content: bytes) -> bytes:
    return JPEG[:2] + _segment(marker, content) + JPEG[2:]


def _exif(orientation: int, width: int = 0) -> bytes:
    """Return an EXIF segment's content; `width` is a further tag that lies about the size."""
    tags = [(0x0100, width), (0x0112, orientation)]
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4)


def _jpeg_of(width: int, height: int) -> bytes:
    """Return the JPEG with another size in its frame."""
    at = JPEG.index(b"\xff\xc0") + 5
    return JPEG[:at] + struct.pack(">HH", height, width) + JPEG[at + 4 :]


def _chunk(kind: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def _png_of(width: int, height: int, data: bytes = b"", depth: int = 8, colour: int = 0) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = _chunk(b"IHDR", head) + _chunk(b"IDAT", data or zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + body + _chunk(b"IEND", b"")


def _zeros(count: int) -> bytes:
    """Return `count` zeros deflated, without ever holding them."""
    packer, block = zlib.compressobj(9), bytes(1 << 20)
    parts = [packer.compress(block) for _ in range(count >> 20)]
    return b"".join(parts) + packer.compress(bytes(count & 0xFFFFF)) + packer.flush()


def _bmp_of(width: int, height: int, bits: int = 24, packed: int = 0, data: bytes = b"") -> bytes:
    palette = bytes(1024) if bits == 8 else b""
    offset = 54 + len(palette)
    head = struct.pack("<2sIHHI", b"BM", offset + len(data), 0, 0, offset)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, packed, len(data), 0, 0, 0, 0)
    return head + info + palette + data


def _top_down() -> bytes:
    rows = PIXELS[:, :, ::-1].tobytes()
    return _bmp_of(64, -48, data=rows)


def _animation(form: str) -> bytes:
    frames = [Image.fromarray(PIXELS), Image.fromarray(PIXELS[::-1])]
    file = io.BytesIO()
    frames[0].save(file, form, save_all=True, append_images=frames[1:])
    return file.getvalue()


def _wide(mode: Any, height: int, width: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(file, mode)
    return file.getvalue()


def _flipped(content: bytes, seed: int) -> bytes:
    """Return the picture with one bit in two hundred bytes turned, its first 20 bytes kept."""
    generator, damaged = np.random.default_rng(seed), bytearray(content)
    for at in generator.integers(20, len(content), max(1, len(content) // 200)):
        damaged[at] ^= 1 << generator.integers(8)
    return bytes(damaged)


def _many_scans() -> bytes:
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


def _turned(orientation: int) -> Pixels:
    return TURNS[orientation](PIXELS) if orientation in TURNS else PIXELS


def _ramp() -> Pixels:
    return np.repeat((COLUMNS * 4).astype(np.uint8)[..., None], 3, axis=2)


def _sixteen() -> bytes:
    """Return a grey ramp of 16 bits as PNG stores it: a filter byte before each row."""
    rows = (COLUMNS * 4 * 257).astype(">u2")
    return zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))


def _device(name: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(name)


def _socket(path: Path) -> None:
    # A socket's address is short: bind by a relative name.
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.write(JPEG)
        file.truncate(8 << 30)


WORDS = {
    "nothing": Case(b"", "the file is empty"),
    "one byte": Case(b"\xff", NOT_READABLE),
    "text": Case(b"no picture at all, but words\n" * 40, NOT_READABLE),
    "a web page": Case(b"<!doctype html><html><body>404</body></html>", NOT_READABLE),
    "svg": Case(b'<svg xmlns="http://www.w3.org/2000/svg"/>', NOT_READABLE),
    "random bytes": Case(np.random.default_rng(0).bytes(50_000), NOT_READABLE),
    "zeros": Case(bytes(50_000), NOT_READABLE),
    "gif": Case(_encoded("GIF"), NOT_READABLE),
    "animated gif": Case(_animation("GIF"), NOT_READABLE),
    "tiff": Case(_encoded("TIFF"), NOT_READABLE),
    "jpeg 2000's signature": Case(b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(99), NOT_READABLE),
    "a zip": Case(b"PK\x03\x04" + bytes(99), NOT_READABLE),
}
FILES = {
    "folder": Case(lambda path: path.mkdir(), "is a directory"),
    "fifo": Case(os.mkfifo, "a pipe, a socket or a device"),
    "socket": Case(_socket, "a pipe, a socket or a device"),
    "/dev/zero": Case(_device("/dev/zero"), "a pipe, a socket or a device"),
    "a link to itself": Case(lambda path: path.symlink_to(path.name), "symbolic links"),
    "a link to nowhere": Case(_device("missing.jpg"), "no such file"),
    "eight gigabytes": Case(_sparse, "8589934592 bytes, allowed are"),
    "a name with a null": Case(b"", "no file can be called so", name="a\0b.jpg"),
    "a name too long": Case(b"", "file name too long", name="n" * 300 + ".jpg"),
    "png called jpg": Case(PNG, pixels=PIXELS),
    "jpeg called bmp": Case(JPEG, pixels=PIXELS, name="picture.bmp"),
}
CUTS = {
    **{f"jpeg cut at {n}/8": Case(JPEG[: len(JPEG) * n // 8], CUT) for n in range(1, 8)},
    "jpeg without its last byte": Case(JPEG[:-1], CUT),
    "jpeg ending in zeros": Case(JPEG[: len(JPEG) // 2] + bytes(len(JPEG) // 2), CUT),
    "jpeg cut behind its thumbnail": Case(_with_segment(0xE1, b"Exif\0\0" + JPEG)[:-2], CUT),
    "jpeg cut in a segment": Case(JPEG[:30], CUT),
    "jpeg of nothing but a start": Case(b"\xff\xd8\xff\xd9", CUT),
    "progressive cut": Case(PROGRESSIVE[: len(PROGRESSIVE) * 2 // 3], CUT),
    "png cut": Case(PNG[: len(PNG) // 2], CUT),
    "png without its end": Case(PNG[:-12], CUT),
    "png of a signature": Case(PNG[:8], CUT),
    "webp cut": Case(WEBP[: len(WEBP) // 2], CUT),
    "webp ending in zeros": Case(WEBP[: len(WEBP) // 2] + bytes(len(WEBP) - len(WEBP) // 2), CUT),
    "webp of a signature": Case(WEBP[:14], CUT),
    "bmp cut": Case(BMP[: len(BMP) // 2], DAMAGED),
    "bmp of a header": Case(BMP[:20], CUT),
}
SIZES = {
    "jpeg of 65500x65500": Case(_jpeg_of(65500, 65500), TOO_MANY),
    "jpeg of nought": Case(_jpeg_of(0, 48), EMPTY),
    "jpeg whose height comes later": Case(_jpeg_of(64, 0), EMPTY),
    "jpeg far larger than its data": Case(_jpeg_of(7000, 7000)),
    "png of 2^31": Case(_png_of(2**31 - 1, 2**31 - 1), TOO_MANY),
    "png of nought": Case(_png_of(0, 5), EMPTY),
    "png bomb": Case(_png_of(30_000, 30_000, _zeros(30_001 * 30_000)), TOO_MANY),
    "png far larger than its data": Case(_png_of(8000, 8000)),
    "bmp of 2^30": Case(_bmp_of(1 << 30, 1 << 30), TOO_MANY),
    "bmp of a negative width": Case(_bmp_of(-64, 48, data=bytes(9216)), EMPTY),
    "bmp of the lowest height": Case(_bmp_of(64, -(2**31)), TOO_MANY),
    "rle bmp that jumps out": Case(_bmp_of(64, 48, 8, 1, b"\0\2\xff\xff" * 99)),
    "webp canvas of 2^24": Case(
        b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(4) + b"\xff" * 6 + bytes(8), TOO_MANY
    ),
    "one pixel": Case(_wide("PNG", 1, 1), pixels=np.full((1, 1, 3), 90, np.uint8)),
    "1x60000": Case(_wide("PNG", 60_000, 1), pixels=np.full((60_000, 1, 3), 90, np.uint8)),
    "60000x1": Case(_wide("JPEG", 1, 60_000), pixels=np.full((1, 60_000, 3), 90, np.uint8)),
}
KINDS = {
    "progressive": Case(PROGRESSIVE, pixels=PIXELS),
    "ten thousand scans": Case(_many_scans(), "more than 100 scans"),
    "cmyk": Case(CMYK, pixels=PIXELS),
    "grey": Case(_encoded("JPEG", "L", quality=95), pixels=GREY),
    "16 bits": Case(_png_of(64, 48, _sixteen(), depth=16), pixels=_ramp()),
    "alpha": Case(_encoded("PNG", "RGBA"), pixels=PIXELS),
    "lossless webp": Case(LOSSLESS, pixels=PIXELS),
    "animated webp": Case(_animation("WEBP"), "an animated WebP"),
    "animated png": Case(_animation("PNG"), pixels=PIXELS),
    "bmp from the top": Case(_top_down(), pixels=PIXELS),
    "bytes behind the end": Case(JPEG + b"MotionPhoto" + bytes(9000) + JPEG, pixels=PIXELS),
    "padding before markers": Case(JPEG[:2] + b"\xff" * 40 + JPEG[2:], pixels=PIXELS),
    "a picture in a comment": Case(_with_segment(0xFE, PNG + JPEG), pixels=PIXELS),
    "garbage for a colour profile": Case(
        _with_segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(range(256)) * 9), pixels=PIXELS
    ),
    "garbage for adobe's marker": Case(_with_segment(0xEE, b"Adobe\xff\xff")),
    "exif that ends at once": Case(_with_segment(0xE1, b"Exif\0\0"), pixels=PIXELS),
    "exif of garbage": Case(_with_segment(0xE1, b"Exif\0\0II*\0" + b"\xff" * 40), pixels=PIXELS),
    "exif that lies about the size": Case(_with_segment(0xE1, _exif(1, 9)), pixels=PIXELS),
    **{
        f"exif orientation {n}": Case(_with_segment(0xE1, _exif(n)), pixels=_turned(n))
        for n in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 65535)
    },
}
FLIPPED = {
    f"{form}, bits turned, {seed}": Case(_flipped(content, seed))
    for form, content in (("jpeg", JPEG), ("png", PNG), ("webp", WEBP), ("bmp", BMP))
    for seed in range(6)
}
CASES: dict[str, Case] = {**WORDS, **FILES, **CUTS, **SIZES, **KINDS, **FLIPPED}


def run(folder: Path) -> list[dict[str, Any]]:
    """Read every case and, after each, the good picture; return what came of them."""
    good = folder / "good.png"
    good.write_bytes(PNG)
    read_image(good)
    return [
        {"case": name, **_run(case, folder / str(number), good)}
        for number, (name, case) in enumerate(CASES.items())
    ]


def _run(case: Case, folder: Path, good: Path) -> dict[str, Any]:
    folder.mkdir()
    path = folder / case.name
    _write(case, path)
    start = time.process_time()
    found, said = _read(path)
    seconds = time.process_time() - start
    return {
        "seconds": seconds,
        "fault": _fault(case, found, said),
        "good": bool((read_image(good) == PIXELS).all()),
        "peak": peak_memory(),
    }


def _write(case: Case, path: Path) -> None:
    if callable(case.make):
        case.make(path)
    elif case.make:
        path.write_bytes(case.make)
    elif case.name == Case.name:
        path.touch()


def _read(path: Path) -> tuple[Pixels | None, str]:
    try:
        return read_image(path), ""
    except ImageError as error:
        return None, str(error)


def _fault(case: Case, found: Pixels | None, said: str) -> str:
    """Return what is wrong with the outcome, or nothing."""
    if "\n" in said:
        return f"more than a line: {said!r}"
    if found is None:
        return "" if (case.error in said and case.pixels is None) else f"got {said!r}"
    if case.error:
        return f"accepted, expected {case.error!r}"
    return "" if case.pixels is None else _difference(found, case.pixels)


def _difference(found: Pixels, expected: Pixels) -> str:
    if found.shape != expected.shape:
        return f"shape {found.shape}, expected {expected.shape}"
    mean = float(np.abs(found.astype(int) - expected).mean())
    return f"pixels differ by {mean:.1f} in the mean" if mean > 4 else ""


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (CEILING, CEILING))
    sys.stdout.write(json.dumps(run(Path(sys.argv[1]))))
