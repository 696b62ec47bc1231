"""Images that cost far more than their bytes say, where nobody counts; and sound ones like them.

By what is wrong with each: its bytes and words of the error, or the pixels that it holds.
"""

import struct
import zlib

from encoded_images import (
    BMP,
    CMYK,
    JPEG,
    LOSSLESS,
    PIXELS,
    PNG,
    PROGRESSIVE,
    WEBP,
    Pixels,
    animation,
    bmp_of,
    chunk,
    encoded,
    exif,
    png_of,
    segment,
    turned,
    zeros,
)

CUT, TAKES, RARE = "cut short or damaged", "decoding it takes", "of a rare kind"
END = PNG[-12:]  # IEND
HEAD = 33  # bytes of signature and IHDR
SECOND_SCAN = PROGRESSIVE.index(b"\xff\xda", PROGRESSIVE.index(b"\xff\xda") + 2)


def with_chunks(*chunks: bytes) -> bytes:
    """Return the PNG with further chunks before its pixels."""
    return PNG[:HEAD] + b"".join(chunks) + PNG[HEAD:]


def _stated(size: int, kind: bytes, rest: bytes = END) -> bytes:
    return PNG[:HEAD] + struct.pack(">I", size) + kind + rest


def _scans() -> bytes:
    """Return a hundred scans behind an end of the image that lies in a comment."""
    last = PROGRESSIVE.rindex(b"\xff\xda")
    comment = segment(0xFE, b"\xff\xd9")
    between = PROGRESSIVE[:SECOND_SCAN] + comment + PROGRESSIVE[SECOND_SCAN:-2]
    return between + PROGRESSIVE[last:-2] * 100 + b"\xff\xd9"


def _sized(content: bytes, side: int, frame: bytes = b"\xff\xc2") -> bytes:
    at = content.index(frame) + 5
    return content[:at] + struct.pack(">HH", side, side) + content[at + 4 :]


def _byte(content: bytes, marker: bytes, offset: int, value: int) -> bytes:
    at = content.index(marker) + offset
    return content[:at] + bytes([value]) + content[at + 1 :]


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    """Return a WebP of these kinds and data."""
    body = b"".join(
        kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for kind, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def extended(flags: int, width: int, height: int) -> tuple[bytes, bytes]:
    sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"VP8X", bytes([flags, 0, 0, 0]) + sizes


def _lossless_of(width: int, height: int) -> bytes:
    return b"\x2f" + struct.pack("<I", width - 1 | (height - 1) << 14) + LOSSLESS[25:]


FRAME = (b"VP8 ", WEBP[20:])
LARGE_FRAME = (b"VP8 ", WEBP[20:26] + struct.pack("<HH", 7000, 6500) + WEBP[30:])

REFUSED: dict[str, tuple[bytes, str]] = {
    "png whose text states 2 GB": (_stated(0x7FFF_FFFF, b"tEXt"), CUT),
    "png whose pixels state 4 GB": (_stated(0xFFFF_FFF0, b"IDAT"), CUT),
    "png whose palette states 2 GB": (_stated(0x7FFF_FFFF, b"PLTE"), CUT),
    "png whose end states 2 GB": (PNG[:-12] + struct.pack(">I", 0x7FFF_FFFF) + END[4:], CUT),
    "png that begins with another chunk": (PNG[:8] + chunk(b"tEXt", b"a\0b") + PNG[8:], CUT),
    "png that begins with a text of a header's size": (
        PNG[:8] + chunk(b"tEXt", PNG[16:29]) + PNG[8:],
        CUT,
    ),
    "png of apple's own": (PNG[:8] + chunk(b"CgBI", bytes(4)) + PNG[8:], CUT),
    "png with a long header": (PNG[:8] + chunk(b"IHDR", PNG[16:29] + b"\0") + PNG[HEAD:], CUT),
    "png whose end lies in a text": (with_chunks(chunk(b"tEXt", b"a\0" + END))[:-12], CUT),
    "png of 70 000 chunks": (with_chunks(chunk(b"IDAT", b"") * 70_000), "more than 65536 chunks"),
    "animated png": (animation("PNG"), "an animated PNG"),
    "png with frames told at its end": (
        PNG[:-12] + chunk(b"acTL", struct.pack(">II", 2, 0)) + END,
        "an animated PNG",
    ),
    "png of 60 megapixels in 200 bytes": (png_of(8000, 7500, zlib.compress(bytes(99))), CUT),
    "png of 60 megapixels": (png_of(8000, 7500, zeros(8001 * 7500)), TAKES),
    "jpeg of 3000 segments": (
        JPEG[:2] + segment(0xFE, b"") * 3000 + JPEG[2:],
        "more than 2000 segments",
    ),
    "scans behind an end in a comment": (_scans(), "more than 50 scans"),
    "arithmetic jpeg": (_byte(JPEG, b"\xff\xc0", 1, 0xC9), RARE),
    "lossless jpeg": (_byte(JPEG, b"\xff\xc0", 1, 0xC3), RARE),
    "jpeg of 12 bits": (_byte(JPEG, b"\xff\xc0", 4, 12), RARE),
    "jpeg with a sampling of 0": (_byte(JPEG, b"\xff\xc0", 11, 0x10), CUT),
    "jpeg with a second start": (JPEG[:2] + JPEG, CUT),
    "jpeg of 64 megapixels": (
        _sized(JPEG, 8000, b"\xff\xc0")[:-2] + bytes(1 << 20) + b"\xff\xd9",
        "decoding it takes 367.2 MiB",
    ),
    "jpeg far larger than its data": (_sized(JPEG, 7000, b"\xff\xc0"), CUT),
    "progressive of 46 megapixels": (
        _sized(encoded("JPEG", progressive=True, subsampling=0), 6800),
        "decoding it takes 396.9 MiB",
    ),
    "progressive cmyk of 33 megapixels": (
        _sized(encoded("JPEG", "CMYK", progressive=True), 5800),
        TAKES,
    ),
    "jpeg of 46 megapixels in several scans": (
        _sized(_byte(CMYK, b"\xff\xda", 4, 1), 5800, b"\xff\xc0"),
        TAKES,
    ),
    "webp of 101 chunks": (riff(FRAME, *[(b"XMP ", b"")] * 100), "more than 100 chunks"),
    "webp whose chunk states 4 GB": (
        riff(extended(0, 64, 48), (b"ICCP", b""))[:-4] + b"\xf0\xff\xff\xff" + WEBP[12:],
        CUT,
    ),
    "webp whose last chunk states 4 GB": (
        riff(FRAME, (b"XMP ", b""))[:-4] + b"\xf0\xff\xff\xff",
        CUT,
    ),
    "webp whose canvas isn't its frame": (riff(extended(0, 640, 480), FRAME), CUT),
    "webp whose frame outgrows its canvas": (riff(extended(0, 64, 48), LARGE_FRAME), CUT),
    "webp without pixels": (riff(extended(0, 64, 48), (b"EXIF", b"")), CUT),
    "webp that begins with alpha": (riff((b"ALPH", b"\0"), FRAME), CUT),
    "webp with frames that it doesn't tell": (
        riff(extended(0, 64, 48), (b"ANIM", bytes(6)), (b"ANMF", bytes(24)), FRAME),
        "an animated WebP",
    ),
    "animated webp without frames": (riff(extended(2, 64, 48), FRAME), "an animated WebP"),
    "lossless webp of 42 megapixels": (riff((b"VP8L", _lossless_of(7000, 6000))), TAKES),
    "webp of 45 megapixels with alpha": (
        riff(extended(16, 7000, 6500), (b"ALPH", b"\0"), LARGE_FRAME),
        TAKES,
    ),
    "bmp of one bit without rows": (bmp_of(8000, 6000, 1), CUT),
    "bmp without its last byte": (BMP[:-1], CUT),
    "packed bmp of 64 megapixels": (bmp_of(8000, 8000, 8, 1, b"\0\1"), TAKES),
}


def _interlaced() -> bytes:
    """Return the pixels in Adam7's passes: https://www.w3.org/TR/png-3/#8Interlace."""
    starts = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2))
    passes = [PIXELS[y::down, x::across] for y, x, down, across in (*starts, (1, 0, 2, 1))]
    rows = b"".join(b"\0" + row.tobytes() for each in passes for row in each)
    head = struct.pack(">IIBBBBB", 64, 48, 8, 2, 0, 0, 1)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows))
    return PNG[:8] + body + END


TEXT = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(7_900_000), 9))
ICC = struct.pack(">I", 7_900_000) + bytes(7_900_000)
TIFF = exif(6).removeprefix(b"Exif\0\0")
SPLIT = [chunk(b"IDAT", PNG[at : at + 1]) for at in range(HEAD + 8, len(PNG) - 16)]

READ: dict[str, tuple[bytes, Pixels]] = {
    "png with 7 GB of texts in 7 MB": (with_chunks(TEXT * 900), PIXELS),
    "png with a large profile": (
        with_chunks(chunk(b"iCCP", b"k\0\0" + zlib.compress(ICC))),
        PIXELS,
    ),
    "png whose text's sum is wrong": (with_chunks(chunk(b"tEXt", b"a\0b")[:-4] + b"0000"), PIXELS),
    "png with its pixels byte by byte": (PNG[:HEAD] + b"".join(SPLIT) + END, PIXELS),
    "png with bytes behind its end": (PNG + bytes(999), PIXELS),
    "png turned by exif": (with_chunks(chunk(b"eXIf", TIFF)), turned(6)),
    "png turned behind its pixels": (PNG[:-12] + chunk(b"eXIf", TIFF) + END, turned(6)),
    "interlaced png": (_interlaced(), PIXELS),
    "jpeg with restarts": (encoded("JPEG", quality=95, restart_marker_blocks=1), PIXELS),
    "progressive with an end in a comment": (
        PROGRESSIVE[:SECOND_SCAN] + segment(0xFE, b"\xff\xd9") + PROGRESSIVE[SECOND_SCAN:],
        PIXELS,
    ),
    "progressive cmyk": (encoded("JPEG", "CMYK", quality=95, progressive=True), PIXELS),
    "jpeg of 16 MB of segments": (JPEG[:2] + segment(0xE1, bytes(65_000)) * 250 + JPEG[2:], PIXELS),
    "extended webp": (riff(extended(0, 64, 48), (b"ICCP", b"icc"), FRAME), PIXELS),
    "webp with exif that it doesn't tell": (
        riff(extended(0, 64, 48), FRAME, (b"EXIF", TIFF)),
        PIXELS,
    ),
    "webp of 100 chunks": (riff(FRAME, *[(b"XMP ", b"")] * 99), PIXELS),
}
