"""WebP: size, turn and cost that a header states, and each refusal at its bound."""

import struct

import pytest

from encoded_images import LOSSLESS, WEBP, animation, encoded, wide
from hostile_costs import FRAME, TIFF, extended, riff
from kedge_runtime.image.header import read_header
from kedge_runtime.image.webp import MAX_CHUNKS
from stated import CUT, Stated, refusal, stated

pytest.importorskip("PIL.Image")


def lossy(width: int, height: int, scale: int = 0) -> tuple[bytes, bytes]:
    """Return a frame of a size, with `scale` (2 bits) in the bits above each."""
    size = struct.pack("<HH", width | scale << 14, height | scale << 14)
    return b"VP8 ", WEBP[20:26] + size + b"\x11" * 9


def lossless(width: int, height: int) -> tuple[bytes, bytes]:
    return b"VP8L", b"\x2f" + struct.pack("<I", 15 << 28 | height - 1 << 14 | width - 1) + b"\x11"


def cut(content: bytes, count: int) -> bytes:
    """Return a WebP without its last `count` bytes, of a size that says so."""
    return b"RIFF" + struct.pack("<I", len(content) - 8 - count) + content[8 : len(content) - count]


ICC, ALPHA, EXIF = (b"ICCP", b"odd"), (b"ALPH", b"\0"), (b"EXIF", TIFF)
WEBPS = {
    "lossy": (WEBP, 64, 48, 0),
    "of an odd size": (wide("WEBP", 37, 301), 301, 37, 0),
    "lossless": (LOSSLESS, 64, 48, 5),
    "lossless, of an odd size": (wide("WEBP", 37, 301, lossless=True), 301, 37, 5),
    "with alpha": (encoded("WEBP", "RGBA"), 64, 48, 0),
    "with alpha's chunk": (riff(extended(16, 64, 48), ALPHA, FRAME), 64, 48, 6),
    "lossless with alpha's chunk": (riff(extended(16, 9, 7), ALPHA, lossless(9, 7)), 9, 7, 5),
    "of the largest size": (riff(lossy(16383, 16383)), 16383, 16383, 0),
    "lossless, of the largest size": (riff(lossless(16384, 16384)), 16384, 16384, 5),
    "with a scale": (riff(lossy(17, 5, 3)), 17, 5, 0),
    "extended": (riff(extended(0, 300, 700), lossy(300, 700)), 300, 700, 0),
    "with a profile of odd size": (riff(extended(0, 64, 48), ICC, FRAME), 64, 48, 0),
    "of two frames": (riff(lossy(9, 7), lossy(99, 77)), 9, 7, 0),
    # What is left is too short for a chunk.
    "with seven bytes left": (cut(riff(FRAME, (b"\1\1\1\1", b"")), 1), 64, 48, 0),
    "with bytes behind its end": (WEBP + b"\1", 64, 48, 0),
    "with zeros behind its end": (WEBP + bytes(64), 64, 48, 0),
    "with 63 zeros at its end": (riff(FRAME, (b"XMP ", b"\1" + bytes(63))), 64, 48, 0),
    "whose last chunk lacks its padding": (cut(riff(FRAME, ICC), 1), 64, 48, 0),
    # The format's pattern has any four bytes for the length.
    "whose length has a line's end": (riff(lossy(9, 7), (b"XMP ", bytes(225) + b"x")), 9, 7, 0),
}


@pytest.mark.parametrize("case", WEBPS)
def test_a_webp_states_its_size_and_what_a_decoder_holds(case: str) -> None:
    content, width, height, each = WEBPS[case]
    at = next(content.index(kind) for kind in (b"VP8 ", b"VP8L") if kind in content)
    size = int.from_bytes(content[at + 4 : at + 8], "little")
    beside, copied = each * width * height, 8 + struct.unpack_from("<I", content, 4)[0] - size
    assert stated(content) == Stated("WebP", width, height, 1, beside, copied)
    assert read_header(content).encoded is content


def test_a_webp_is_turned_by_exif_where_its_header_has_some() -> None:
    assert stated(riff(extended(8, 64, 48), FRAME, EXIF)).orientation == 6
    assert stated(riff(extended(0xF5, 64, 48), FRAME, EXIF)).orientation == 1
    assert stated(riff(extended(8, 64, 48), FRAME)).orientation == 1
    assert stated(riff(FRAME, EXIF)).orientation == 1


ANIMATED = "an animated WebP; give one frame of it"
REFUSED = {
    "without its last byte": (WEBP[:-1], CUT),
    "with 64 zeros at its end": (riff(FRAME, (b"XMP ", bytes(64))), CUT),
    "of a signature": (WEBP[:12], CUT),
    "without pixels": (riff(extended(0, 64, 48), ICC), CUT),
    "that begins with another chunk": (riff(ICC, FRAME), CUT),
    "whose header isn't the first chunk": (riff(ICC, extended(0, 64, 48), FRAME), CUT),
    "whose canvas is wider": (riff(extended(0, 65, 48), FRAME), CUT),
    "whose canvas is higher": (riff(extended(0, 64, 49), FRAME), CUT),
    "whose canvas is wider by 65536": (riff(extended(0, 64 + 65536, 48), FRAME), CUT),
    "whose last chunk ends a byte behind the file": (
        riff(FRAME, (b"XMP ", b""))[:-4] + b"\1\0\0\0",
        CUT,
    ),
    "whose last chunk states 4 GB": (
        riff(FRAME, (b"XMP ", b""))[:-4] + b"\xf8\xff\xff\xff",
        CUT,
    ),
    "that states 4 GB": (WEBP[:4] + b"\xff\xff\xff\xff" + WEBP[8:], CUT),
    "of no width": (riff(lossy(0, 7)), "a WebP of 0x7 pixels, it is empty"),
    "by Pillow, animated": (animation("WEBP"), ANIMATED),
    "told to be animated": (riff(extended(2, 64, 48), FRAME), ANIMATED),
    "with an animation's header": (riff(extended(0, 64, 48), (b"ANIM", bytes(6)), FRAME), ANIMATED),
    "with an animation's frame": (riff(FRAME, (b"ANMF", bytes(6))), ANIMATED),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_webp_is_refused(case: str) -> None:
    content, message = REFUSED[case]
    assert refusal(content) == message


def test_a_webp_has_no_more_chunks_than_allowed() -> None:
    most = [FRAME, *[ICC] * (MAX_CHUNKS - 1)]
    assert stated(riff(*most)).width == 64
    assert stated(cut(riff(*most, (b"\1\1\1\1", b"")), 1)).width == 64
    assert refusal(riff(*most, ICC)) == "a WebP of more than 100 chunks; save it anew"
    assert refusal(riff(*most, (b"XMP ", b""))) == refusal(riff(*most, ICC))
