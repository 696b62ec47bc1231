"""PNG, BMP and no known format: size and cost that a header states, and refusals at their bound."""

import struct

import cv2
import numpy as np
import pytest

from encoded_images import BMP, PNG, animation, bmp_of, chunk, encoded, png_of, top_down, wide
from hostile_costs import END, HEAD, TIFF, with_chunks
from kedge_runtime.image.header import ImageHeader, read_header
from kedge_runtime.image.png import MAX_CHUNKS
from stated import CUT, Stated, refusal, stated

pytest.importorskip("PIL.Image")


BY_DEPTH = {  # colour type, depth -> pixels of 1032 bytes, without a row's filter
    "grey, 1": (0, 1, 1032 * 8),
    "grey, 16": (0, 16, 516),
    "rgb, 8": (2, 8, 344),
    "rgb, 16": (2, 16, 172),
    "palette, 4": (3, 4, 1032 * 2),
    "grey and alpha, 8": (4, 8, 516),
    "rgba, 8": (6, 8, 258),
}


@pytest.mark.parametrize("case", BY_DEPTH)
def test_a_png_has_a_byte_for_1032_of_its_rows(case: str) -> None:
    colour, depth, width = BY_DEPTH[case]
    assert stated(png_of(width, 3, bytes(3), depth, colour)) == Stated(
        "PNG", width, 3, copied=13 + 3
    )
    assert refusal(png_of(width, 4, bytes(3), depth, colour)) == CUT
    assert refusal(png_of(width + 1, 3, bytes(3), depth, colour)) == CUT


def test_a_pngs_rows_are_whole_bytes() -> None:
    assert stated(png_of(8, 1032, b"\0", 1)).height == 1032
    assert refusal(png_of(9, 1032, b"\0", 1)) == CUT
    assert stated(png_of(9, 516, b"\0", 1)).height == 516


def test_a_png_of_an_unknown_colour_is_left_to_the_decoder() -> None:
    assert stated(png_of(9999, 9999, b"\0", 8, 5))[1:3] == (9999, 9999)


PNGS = {
    "rgb": (PNG, PNG, 1),
    "of an odd size": (wide("PNG", 7, 9), wide("PNG", 7, 9), 1),
    "palette": (encoded("PNG", "P"), encoded("PNG", "P"), 1),
    "with bytes behind its end": (PNG + b"\0", PNG + b"\0", 1),
    "with a text": (with_chunks(chunk(b"tEXt", b"a\0b")), PNG, 1),
    "with a text behind its pixels": (PNG[:-12] + chunk(b"tEXt", b"a\0b") + END, PNG, 1),
    "turned": (with_chunks(chunk(b"eXIf", TIFF)), PNG, 6),
    "turned, and nothing behind": (with_chunks(chunk(b"eXIf", TIFF[:-6])), PNG, 6),
    # The sum, which no decoder looks at here, must not complete it.
    "with EXIF cut in its value": (
        with_chunks(chunk(b"eXIf", TIFF[:-7])[:-4] + bytes(4)),
        PNG,
        1,
    ),
}


@pytest.mark.parametrize("case", PNGS)
def test_a_png_states_its_size_and_gives_the_decoder_what_it_needs(case: str) -> None:
    content, needed, orientation = PNGS[case]
    header = read_header(content)
    width, height = struct.unpack_from(">II", content, 16)
    chunks = png_chunks(needed)
    assert stated(content) == Stated("PNG", width, height, orientation, 0, sum(map(len, chunks)))
    assert header.encoded == needed


def png_chunks(content: bytes) -> list[bytes]:
    """Return the data of each chunk."""
    at, found = 8, []
    while at < len(content) - 8:
        size = int.from_bytes(content[at : at + 4], "big")
        found.append(content[at + 8 : at + 8 + size])
        at += 12 + size
    return found


REFUSED_PNGS = {
    "without its last byte": PNG[:-1],
    "cut before a chunk's kind": PNG[:-5],
    "of a signature": PNG[:8],
    "with a short header": PNG[:8] + chunk(b"IHDR", PNG[16:28]) + PNG[HEAD:],
    "with a long header": PNG[:8] + chunk(b"IHDR", PNG[16:29] + b"\0") + PNG[HEAD:],
    "that begins with a text of a header's size": PNG[:8] + chunk(b"tEXt", bytes(13)) + PNG[8:],
    "of 2^31 columns": png_of(1 << 31, 1),
    "of 2^31 rows": png_of(1, 1 << 31),
    "of texts for pixels": PNG[:HEAD] + chunk(b"tEXt", bytes(9999)) + END,
}


@pytest.mark.parametrize("case", REFUSED_PNGS)
def test_a_png_is_refused(case: str) -> None:
    assert refusal(REFUSED_PNGS[case]) == CUT


def test_an_animated_png_is_refused() -> None:
    assert refusal(animation("PNG")) == "an animated PNG; give one frame of it"


def test_a_png_has_no_more_chunks_than_allowed() -> None:
    most = PNG[:HEAD] + chunk(b"tEXt", b"") * (MAX_CHUNKS - 3) + PNG[HEAD:]
    assert len(png_chunks(PNG)) == 3
    assert read_header(most).encoded == PNG
    more = most[:HEAD] + chunk(b"tEXt", b"") + most[HEAD:]
    assert refusal(more) == "a PNG of more than 65536 chunks; save it anew"


# Rows of so many pixels and bits, padded to four bytes.
ROWS = {
    "8 bits": (8, 5, 8),
    "8 bits, whole": (8, 4, 4),
    "1 bit": (1, 33, 8),
    "1 bit, whole": (1, 32, 4),
    "4 bits": (4, 9, 8),
    "16 bits": (16, 3, 8),
    "24 bits": (24, 3, 12),
    "24 bits, whole": (24, 4, 12),
    "32 bits": (32, 3, 12),
}


@pytest.mark.parametrize("height", [3, -3], ids=["up", "down"])
@pytest.mark.parametrize("packed", [0, 3], ids=["plain", "with masks"])
@pytest.mark.parametrize("case", ROWS)
def test_a_bmps_rows_lie_in_the_file(case: str, packed: int, height: int) -> None:
    bits, width, row = ROWS[case]
    content = bmp_of(width, height, bits, packed, bytes(3 * row))
    assert stated(content) == Stated("BMP", width, 3)
    assert read_header(content).encoded is content
    assert refusal(content[:-1]) == CUT


def os2(width: int, height: int, rows: int) -> bytes:
    """Return a BMP of OS/2 with a bit for each pixel."""
    sizes = struct.pack("<IHHHH", 12, width, height, 1, 1)
    return struct.pack("<2sIHHI", b"BM", 32 + rows, 0, 0, 32) + sizes + bytes(6 + rows)


def test_a_bmp_of_os2_has_sizes_of_sixteen_bits() -> None:
    assert stated(os2(65535, 2, 16384)) == Stated("BMP", 65535, 2)
    assert refusal(os2(65535, 2, 16383)) == CUT
    assert stated(os2(32, 65535, 262140)) == Stated("BMP", 32, 65535)


BMPS = {
    "by Pillow": (BMP, Stated("BMP", 64, 48)),
    "by Pillow, grey": (encoded("BMP", "L"), Stated("BMP", 64, 48)),
    "by Pillow, bits": (encoded("BMP", "1"), Stated("BMP", 64, 48)),
    "by Pillow, of an odd size": (wide("BMP", 7, 13), Stated("BMP", 13, 7)),
    "by OpenCV": (cv2.imencode(".bmp", np.zeros((7, 13, 3)))[1].tobytes(), Stated("BMP", 13, 7)),
    "from the top": (top_down(), Stated("BMP", 64, 48)),
    "RLE8": (bmp_of(640, 480, 8, 1, b"\0\1"), Stated("BMP", 640, 480)),
    "RLE4": (bmp_of(640, -480, 4, 2, b"\0\1"), Stated("BMP", 640, 480)),
}


@pytest.mark.parametrize("case", BMPS)
def test_a_bmp_states_its_size(case: str) -> None:
    content, expected = BMPS[case]
    assert stated(content) == expected


REFUSED_BMPS = {
    "whose rows lie beyond the end": (BMP[:10] + b"\xf0\xff\xff\xff" + BMP[14:], CUT),
    "of too many bits": (bmp_of(64, 48, 0xFFFF), CUT),
    "of other packing": (bmp_of(64, 48, 8, 4), CUT),
    "cut in its header": (BMP[:33], CUT),
    "of no width": (bmp_of(0, 48, data=bytes(9216)), "a BMP of 0x48 pixels, it is empty"),
    "of no height": (bmp_of(64, 0), "a BMP of 64x0 pixels, it is empty"),
    "of a width below zero": (
        bmp_of(-1, 48, data=bytes(9216)),
        "a BMP of -1x48 pixels, it is empty",
    ),
    "of a signature": (b"BM", CUT),
}


@pytest.mark.parametrize("case", REFUSED_BMPS)
def test_a_bmp_is_refused(case: str) -> None:
    content, message = REFUSED_BMPS[case]
    assert refusal(content) == message


@pytest.mark.parametrize("content", [b"", b"B", b"\xff\xd8", b"GIF89a", b" " + PNG, b"RIFF..WEBP"])
def test_another_format_is_refused(content: bytes) -> None:
    assert refusal(content) == "no readable JPEG, PNG, WebP or BMP image"


@pytest.mark.parametrize("content", [wide("PNG", 1, 1), wide("BMP", 1, 1)], ids=["png", "bmp"])
def test_a_single_pixel_is_an_image(content: bytes) -> None:
    assert stated(content)[1:3] == (1, 1)


def test_memory_is_file_copies_pixels_and_the_larger_of_a_copy_and_what_is_held_beside() -> None:
    pixels = ImageHeader("JPEG", 17, 9, bytes(1000), None, beside=100, copied=20)
    assert pixels.memory() == 1000 + 20 + 2 * 3 * 17 * 9
    assert pixels.memory(8) == 1000 + 20 + 3 * 3 * 2 + 100
