"""Define the record of an encoded image's header, and read EXIF orientations."""

import struct
from dataclasses import dataclass, field

# CIPA DC-008 (EXIF 2.32): a TIFF file, in which tag 0x0112 of the first folder is the orientation.
_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_ORIENTATION = 0x0112


def orientation(exif: bytes) -> int:
    """Return the EXIF orientation, 1 (upright) to 8; 1 where EXIF is damaged or states none."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = _ORDERS.get(tiff[:4])
    try:
        value = _entry(tiff, order) if order else 1
    except struct.error:
        # Decoders accept images with damaged EXIF, too.
        return 1
    return value if 1 <= value <= 8 else 1


def _entry(tiff: bytes, order: str) -> int:
    (at,) = struct.unpack_from(f"{order}I", tiff, 4)
    (count,) = struct.unpack_from(f"{order}H", tiff, at)
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, value = struct.unpack_from(f"{order}H6xH", tiff, entry)
        if tag == _ORIENTATION:
            return int(value)
    return 1


CUT = "cut short or damaged; copy it again"
CHANNELS = 3  # OpenCV decodes all formats to BGR, uint8


class HeaderError(ValueError):
    """Bytes that hold no complete image; the message has no file name."""


@dataclass(frozen=True)
class ImageHeader:
    """Format, size and decoding cost of an encoded image.

    `width`, `height`: pixels as stored, before EXIF. `encoded`: the bytes for the decoder.
    `orientation`: EXIF's, 1..8; None leaves it to the decoder. `beside`: bytes that the decoder
    holds until the pixels are decoded, such as coefficients. `copied`: bytes of the file that it
    copies.
    """

    format: str
    width: int
    height: int
    encoded: bytes = field(repr=False)
    orientation: int | None = 1
    beside: int = 0
    copied: int = 0

    def memory(self, by: int = 1) -> int:
        """Return the peak bytes of file and decoder when the sides are divided by `by`, 1..8.

        OpenCV's Python binding copies the pixels when the decoder is done, and so does a turn.
        """
        pixels = CHANNELS * -(-self.width // by) * -(-self.height // by)
        return len(self.encoded) + self.copied + pixels + max(pixels, self.beside)
