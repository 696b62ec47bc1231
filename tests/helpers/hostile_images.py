"""A corpus of hostile pictures, made from a seed, and the run that every one must survive.

As a script it writes the corpus into a folder, reads each picture with `read_image` in this one
process under a ceiling of memory, reads a good picture after each, and prints a JSON list:

    python tests/helpers/hostile_images.py FOLDER [IMAGE...]

Further images must be refused. A case is bytes, or a function that makes a file of another kind,
and what must come of it: the words of an ImageError, or the right pixels (within a tolerance, the
formats here are lossy).
"""

import json
import os
import resource
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from encoded_images import (
    BMP,
    CMYK,
    GREY,
    JPEG,
    LOSSLESS,
    PIXELS,
    PNG,
    PROGRESSIVE,
    WEBP,
    Pixels,
    animation,
    bmp_of,
    encoded,
    exif,
    flipped,
    jpeg_of,
    many_scans,
    png_of,
    ramp,
    sixteen,
    top_down,
    turned,
    wide,
    with_segment,
    zeros,
)
from hostile_costs import READ, REFUSED
from kedge_runtime.checks.bench import peak_memory
from kedge_runtime.errors import ImageError
from kedge_runtime.image.decode import read_image

Make = bytes | Callable[[Path], None]

CEILING = 3 << 30  # bytes of address space; libraries reserve much of it without touching it


@dataclass(frozen=True)
class Case:
    """What is read, and what must come: `error`, words of the message, or `pixels`, or either.

    With neither, damage may go unseen: any picture of the header's size or any ImageError will do.
    """

    make: Make
    error: str = ""
    pixels: Pixels | None = None
    name: str = "picture.jpg"


CUT, NOT_READABLE, TOO_MANY = "cut short or damaged", "no readable JPEG", "pixels, allowed are"
EMPTY = "pixels, it is empty"


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
    "gif": Case(encoded("GIF"), NOT_READABLE),
    "animated gif": Case(animation("GIF"), NOT_READABLE),
    "tiff": Case(encoded("TIFF"), NOT_READABLE),
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
    "a name with a null": Case(b"", "invalid file name", name="a\0b.jpg"),
    "a name too long": Case(b"", "file name too long", name="n" * 300 + ".jpg"),
    "png called jpg": Case(PNG, pixels=PIXELS),
    "jpeg called bmp": Case(JPEG, pixels=PIXELS, name="picture.bmp"),
}
CUTS = {
    **{f"jpeg cut at {n}/8": Case(JPEG[: len(JPEG) * n // 8], CUT) for n in range(1, 8)},
    "jpeg without its last byte": Case(JPEG[:-1], CUT),
    "jpeg ending in zeros": Case(JPEG[: len(JPEG) // 2] + bytes(len(JPEG) // 2), CUT),
    "jpeg cut behind its thumbnail": Case(with_segment(0xE1, b"Exif\0\0" + JPEG)[:-2], CUT),
    "jpeg cut in a segment": Case(JPEG[:30], CUT),
    "jpeg of nothing but a start": Case(b"\xff\xd8\xff\xd9", CUT),
    "progressive cut": Case(PROGRESSIVE[: len(PROGRESSIVE) * 2 // 3], CUT),
    "png cut": Case(PNG[: len(PNG) // 2], CUT),
    "png without its end": Case(PNG[:-12], CUT),
    "png of a signature": Case(PNG[:8], CUT),
    "webp cut": Case(WEBP[: len(WEBP) // 2], CUT),
    "webp ending in zeros": Case(WEBP[: len(WEBP) // 2] + bytes(len(WEBP) - len(WEBP) // 2), CUT),
    "webp of a signature": Case(WEBP[:14], CUT),
    "bmp cut": Case(BMP[: len(BMP) // 2], CUT),
    "bmp of a header": Case(BMP[:20], CUT),
}
SIZES = {
    "jpeg of 65500x65500": Case(jpeg_of(65500, 65500), CUT),
    "jpeg of nought": Case(jpeg_of(0, 48), EMPTY),
    "jpeg whose height comes later": Case(jpeg_of(64, 0), EMPTY),
    "png of 2^31": Case(png_of(2**31 - 1, 2**31 - 1), CUT),
    "png of nought": Case(png_of(0, 5), EMPTY),
    "png bomb": Case(png_of(30_000, 30_000, zeros(30_001 * 30_000)), TOO_MANY),
    "png far larger than its data": Case(png_of(8000, 8000), CUT),
    "bmp of 2^30": Case(bmp_of(1 << 30, 1 << 30, 8, 1), TOO_MANY),
    "bmp of a negative width": Case(bmp_of(-64, 48, data=bytes(9216)), EMPTY),
    "bmp of the lowest height": Case(bmp_of(64, -(2**31)), CUT),
    "rle bmp that jumps out": Case(bmp_of(64, 48, 8, 1, b"\0\2\xff\xff" * 99)),
    "webp canvas of 2^24": Case(
        b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(4) + b"\xff" * 6 + bytes(8), CUT
    ),
    "one pixel": Case(wide("PNG", 1, 1), pixels=np.full((1, 1, 3), 90, np.uint8)),
    "1x60000": Case(wide("PNG", 60_000, 1), pixels=np.full((60_000, 1, 3), 90, np.uint8)),
    "60000x1": Case(wide("JPEG", 1, 60_000), pixels=np.full((1, 60_000, 3), 90, np.uint8)),
}
KINDS = {
    "progressive": Case(PROGRESSIVE, pixels=PIXELS),
    "ten thousand scans": Case(many_scans(), "more than 50 scans"),
    "cmyk": Case(CMYK, pixels=PIXELS),
    "grey": Case(encoded("JPEG", "L", quality=95), pixels=GREY),
    "16 bits": Case(png_of(64, 48, sixteen(), depth=16), pixels=ramp()),
    "alpha": Case(encoded("PNG", "RGBA"), pixels=PIXELS),
    "lossless webp": Case(LOSSLESS, pixels=PIXELS),
    "animated webp": Case(animation("WEBP"), "an animated WebP"),
    "bmp from the top": Case(top_down(), pixels=PIXELS),
    "bytes behind the end": Case(JPEG + b"MotionPhoto" + bytes(9000) + JPEG, pixels=PIXELS),
    "padding before markers": Case(JPEG[:2] + b"\xff" * 40 + JPEG[2:], pixels=PIXELS),
    "a picture in a comment": Case(with_segment(0xFE, PNG + JPEG), pixels=PIXELS),
    "garbage for a colour profile": Case(
        with_segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(range(256)) * 9), pixels=PIXELS
    ),
    "garbage for adobe's marker": Case(with_segment(0xEE, b"Adobe\xff\xff")),
    "exif that ends at once": Case(with_segment(0xE1, b"Exif\0\0"), pixels=PIXELS),
    "exif of garbage": Case(with_segment(0xE1, b"Exif\0\0II*\0" + b"\xff" * 40), pixels=PIXELS),
    "exif that lies about the size": Case(with_segment(0xE1, exif(1, 9)), pixels=PIXELS),
    **{
        f"exif orientation {n}": Case(with_segment(0xE1, exif(n)), pixels=turned(n))
        for n in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 65535)
    },
}
FLIPPED = {
    f"{form}, bits turned, {seed}": Case(flipped(content, seed))
    for form, content in (("jpeg", JPEG), ("png", PNG), ("webp", WEBP), ("bmp", BMP))
    for seed in range(6)
}
COSTS = {
    **{name: Case(content, error) for name, (content, error) in REFUSED.items()},
    **{name: Case(content, pixels=pixels) for name, (content, pixels) in READ.items()},
}
CASES: dict[str, Case] = {**WORDS, **FILES, **CUTS, **SIZES, **KINDS, **COSTS, **FLIPPED}


def run(folder: Path, images: Sequence[str]) -> list[dict[str, Any]]:
    """Read every case and, after each, the good picture; return what came of them."""
    cases = {**CASES, **{each: Case(Path(each).read_bytes(), ": ") for each in images}}
    good = folder / "good.png"
    good.write_bytes(PNG)
    read_image(good)
    return [
        {"case": name, **_run(case, folder / str(number), good)}
        for number, (name, case) in enumerate(cases.items())
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
    sys.stdout.write(json.dumps(run(Path(sys.argv[1]), sys.argv[2:])))
