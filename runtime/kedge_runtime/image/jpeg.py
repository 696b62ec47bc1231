"""Read the header of a JPEG: ITU-T T.81, annex B."""

import re
import struct
from collections.abc import Iterator

from kedge_runtime.frozen import dataclass
from kedge_runtime.image.header import CUT, HeaderError, ImageHeader

# A marker's code. Filling, restarts (RSTn) and TEM have no segment.
_MARKER = re.compile(rb"\xff+([^\x00\x01\xd0-\xd7\xff])")
_START, _END, _SCAN = 0xD8, 0xD9, 0xDA
# Frames that carry the size (SOFn, table B.1), and those of them that every OpenCV decodes.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = 0xC2
_READABLE = frozenset({0xC0, 0xC1, _PROGRESSIVE})
# Real progressive files have about ten scans; each makes the decoder walk the whole image.
MAX_SCANS = 50
# A segment holds 64 KB. Depth maps and profiles fill a few hundred.
MAX_SEGMENTS = 2000
_BLOCK = 8 * 8 * 2  # bytes of a block's coefficients


@dataclass(frozen=True)
class _Frame:
    """A frame header (SOFn); `sampling`: horizontal and vertical factor of each component."""

    progressive: bool
    width: int
    height: int
    sampling: tuple[tuple[int, int], ...]

    @property
    def highest(self) -> tuple[int, int]:
        """Blocks across and down in a unit (MCU): the highest factors."""
        return max(h for h, _ in self.sampling), max(v for _, v in self.sampling)

    @property
    def coefficients(self) -> int:
        """Bytes of all coefficients, which libjpeg holds where there are several scans."""
        across, down = self.highest
        units = _ceil(self.width, 8 * across) * _ceil(self.height, 8 * down)
        blocks = (units * each_across * each_down for each_across, each_down in self.sampling)
        return sum(blocks) * _BLOCK

    @property
    def least(self) -> int:
        """Bytes of the shortest scan: each block has two codes, of at least a bit each."""
        across, down = self.highest
        blocks = self.width * self.height * sum(h * v for h, v in self.sampling)
        return blocks // (64 * across * down) * 2 // 8


def read(content: bytes) -> ImageHeader:
    """Walk the segments to the end of the image, or of the only scan's header."""
    frame, first, scans = None, 0, 0
    for code, at in _segments(content):
        if code in _FRAMES and frame is None:
            frame = _frame(code, content, at)
        if code == _SCAN:
            first, scans = first or at, scans + 1
            if frame and not frame.progressive and content[at + 2] == len(frame.sampling):
                _check_whole(content, at, frame.least)
                break
        if scans > MAX_SCANS:
            raise HeaderError(f"a JPEG of more than {MAX_SCANS} scans; save it anew")
    if frame is None or not scans:
        raise HeaderError(CUT)
    beside = frame.coefficients if code == _END else 0
    # EXIF and profiles lie before the first scan; OpenCV 5 holds them twice.
    return ImageHeader("JPEG", frame.width, frame.height, content, None, beside, 2 * first)


def _segments(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield each marker's code and where its segment begins, to the end of the image.

    Data between the segments, such as a scan's, holds no marker but restarts.
    """
    at = 2
    for _ in range(MAX_SEGMENTS):
        marker = _MARKER.search(content, at)
        if not marker or marker[1][0] == _START:
            raise HeaderError(CUT)
        code, at = marker[1][0], marker.end()
        yield code, at
        if code == _END:
            return
        at += max(2, *struct.unpack_from(">H", content, at))
    raise HeaderError(f"a JPEG of more than {MAX_SEGMENTS} segments; save it anew")


def _frame(code: int, content: bytes, at: int) -> _Frame:
    bits, height, width, count = struct.unpack_from(">BHHB", content, at + 2)
    if code not in _READABLE or bits != 8:
        raise HeaderError(
            f"a JPEG of a rare kind (SOF{code - 0xC0}, {bits} bits); save it as baseline JPEG"
        )
    factors = tuple(divmod(content[at + 9 + 3 * i], 16) for i in range(count))
    if not factors or not all(1 <= factor <= 4 for pair in factors for factor in pair):
        raise HeaderError(CUT)
    return _Frame(code == _PROGRESSIVE, width, height, factors)


def _check_whole(content: bytes, at: int, least: int) -> None:
    """Raise HeaderError unless the only scan, which starts at `at`, has `least` bytes and an end.

    libjpeg fills in the rest of a shorter one. Thumbnails in EXIF end like images, so only bytes
    behind the scan's start count. Cameras append images and films, so bytes behind its end don't.
    """
    if content.find(bytes([0xFF, _END]), at + 2) - at < least:
        raise HeaderError(CUT)


def _ceil(number: int, by: int) -> int:
    return -(-number // by)
