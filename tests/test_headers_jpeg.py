"""JPEG: size and cost that a header states, and each refusal at its bound.

Made by Pillow where it can; else a start, frames and scans, sound in what the header's reader
looks at alone.
"""

import struct
from collections.abc import Sequence

import pytest

from encoded_images import JPEG, SCAN, segment, wide
from kedge_runtime.image.header import read_header
from kedge_runtime.image.jpeg import MAX_SCANS, MAX_SEGMENTS
from stated import CUT, Stated, refusal, stated

pytest.importorskip("PIL.Image")


ENDED = b"\xff\xd9"


def frame(
    *factors: int, size: tuple[int, int] = (64, 64), code: int = 0xC0, bits: int = 8
) -> bytes:
    components = b"".join(bytes([1, factor, 0]) for factor in factors)
    return segment(code, struct.pack(">BHHB", bits, size[1], size[0], len(factors)) + components)


def scan(components: int = 1, data: int = 0) -> bytes:
    """Return a scan, of `data` bytes from the components' count to its end."""
    return segment(0xDA, bytes([components])) + b"\x11" * (data - 3)


def of_scans(count: int) -> bytes:
    return JPEG[:2] + frame(0x11, code=0xC2) + scan() * count + ENDED


def of_segments(count: int) -> bytes:
    """Return a JPEG of so many segments; its scans are of a component each."""
    between = segment(0xFE, b"") * (count - 3)
    return JPEG[:2] + frame(0x11, 0x11) + between + scan() + ENDED


def of_scan(factors: Sequence[int], size: tuple[int, int], data: int) -> bytes:
    """Return a JPEG with an only scan of `data` bytes."""
    return JPEG[:2] + frame(*factors, size=size) + scan(len(factors), data) + ENDED


def first_scan(content: bytes) -> int:
    """Return where the first scan's segment begins, behind its marker."""
    return content.index(b"\xff\xda") + 2


JPEGS = {
    "baseline": (JPEG, (64, 48), 0),
    "of an odd size": (wide("JPEG", 37, 61), (61, 37), 0),
    # 4:2:0: units of 16x16, each of 4 + 1 + 1 blocks of 128 bytes
    "progressive": (wide("JPEG", 37, 61, progressive=True), (61, 37), 4 * 3 * 6 * 128),
    # 4:2:2: units of 16x8, each of 2 + 1 + 1 blocks
    "progressive 4:2:2": (
        wide("JPEG", 37, 61, progressive=True, subsampling=1),
        (61, 37),
        4 * 5 * 4 * 128,
    ),
    "progressive 4:4:4": (
        wide("JPEG", 37, 61, progressive=True, subsampling=0),
        (61, 37),
        8 * 5 * 3 * 128,
    ),
    "baseline of a scan for each component": (
        JPEG[:2] + frame(0x11, 0x12, size=(17, 9)) + scan() + scan() + ENDED,
        (17, 9),
        3 * 1 * 3 * 128,
    ),
    "extended sequential": (
        JPEG[:2] + frame(0x11, size=(8, 8), code=0xC1) + scan(1, 9) + ENDED,
        (8, 8),
        0,
    ),
    "of no further segment": (JPEG[:2] + frame(0x44, size=(8, 9)) + scan(1, 9) + ENDED, (8, 9), 0),
    "of two frames": (JPEG[:2] + frame(0x11, 0x11, 0x11, size=(8, 9)) + JPEG[2:], (8, 9), 0),
    "with a segment of no length": (JPEG[:2] + b"\xff\xfe\0\0" + JPEG[2:], (64, 48), 0),
    "with a segment of one byte": (JPEG[:2] + b"\xff\xfe\0\1" + JPEG[2:], (64, 48), 0),
    "with a long segment": (JPEG[:2] + segment(0xFE, ENDED * 20_000) + JPEG[2:], (64, 48), 0),
    "with filling before markers": (JPEG[:2] + b"\xff" * 9 + JPEG[2:], (64, 48), 0),
    "with a restart between segments": (JPEG[:2] + b"\xff\xd0\xff\xd7" + JPEG[2:], (64, 48), 0),
    "of the largest size": (of_scan([0x11], (65535, 65535), 1 << 24), (65535, 65535), 0),
    "with another behind it": (JPEG + JPEG, (64, 48), 0),
}


@pytest.mark.parametrize("case", JPEGS)
def test_a_jpeg_states_its_size_and_what_a_decoder_holds(case: str) -> None:
    content, size, coefficients = JPEGS[case]
    copied = 2 * first_scan(content)
    assert stated(content) == Stated("JPEG", *size, None, coefficients, copied)
    assert read_header(content).encoded is content


@pytest.mark.parametrize(
    ("factors", "size", "least"),
    [
        ((0x11,), (64, 64), 64 * 2 // 8),
        ((0x11,), (80, 40), 50 * 2 // 8),
        ((0x22, 0x11, 0x11), (64, 64), 16 * 6 * 2 // 8),
        ((0x21, 0x11, 0x11), (64, 64), 32 * 4 * 2 // 8),
        ((0x12, 0x11), (64, 64), 32 * 3 * 2 // 8),
        ((0x41, 0x14), (64, 64), 4 * 8 * 2 // 8),
    ],
)
def test_a_jpegs_only_scan_has_two_bits_for_each_block(
    factors: Sequence[int], size: tuple[int, int], least: int
) -> None:
    assert stated(of_scan(factors, size, least))[1:3] == size
    assert refusal(of_scan(factors, size, least - 1)) == CUT
    # Others that a camera appends don't make up for it.
    assert refusal(of_scan(factors, size, least - 1) + JPEG) == CUT


RARE = "a JPEG of a rare kind (SOF{}, {} bits); save it as baseline JPEG"
REFUSED_JPEGS = {
    "without a frame": (JPEG[:2] + scan() + ENDED, CUT),
    "without a scan": (JPEG[:2] + frame(0x11) + ENDED, CUT),
    "without an end": (JPEG[:-2], CUT),
    "cut in its frame": (JPEG[: JPEG.index(b"\xff\xc0") + 9], CUT),
    "cut in its components": (JPEG[: JPEG.index(b"\xff\xc0") + 11], CUT),
    "cut before its scan's count": (JPEG[: SCAN + 4], CUT),
    "with a second start": (JPEG[:SCAN] + b"\xff\xd8" + JPEG[SCAN:], CUT),
    "of no component": (JPEG[:2] + frame() + scan(0) + ENDED, CUT),
    **{
        f"with a factor of {pair:02x}": (of_scan((0x11, pair), (8, 8), 99), CUT)
        for pair in (0x01, 0x10, 0x51, 0x15)
    },
    **{
        f"of frame {code:x}": (
            JPEG[:2] + frame(0x11, code=code) + scan() + ENDED,
            RARE.format(code - 0xC0, 8),
        )
        for code in (0xC3, 0xC5, 0xC9, 0xCF)
    },
    "of 12 bits": (JPEG[:2] + frame(0x11, bits=12) + scan() + ENDED, RARE.format(0, 12)),
    "of 64x0": (JPEG[:2] + frame(0x11, size=(64, 0)) + scan(1, 9) + ENDED, None),
}


@pytest.mark.parametrize("case", REFUSED_JPEGS)
def test_a_jpeg_is_refused(case: str) -> None:
    content, message = REFUSED_JPEGS[case]
    assert refusal(content) == (message or "a JPEG of 64x0 pixels, it is empty")


def test_a_jpeg_has_no_more_scans_and_segments_than_allowed() -> None:
    assert stated(of_scans(MAX_SCANS)).format == "JPEG"
    assert refusal(of_scans(MAX_SCANS + 1)) == "a JPEG of more than 50 scans; save it anew"
    assert stated(of_segments(MAX_SEGMENTS)).format == "JPEG"
    more = refusal(of_segments(MAX_SEGMENTS + 1))
    assert more == "a JPEG of more than 2000 segments; save it anew"
