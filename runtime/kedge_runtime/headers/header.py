"""What every reader of a header returns."""

from dataclasses import dataclass, field

CUT = "cut short or damaged; copy it again"
CHANNELS = 3  # OpenCV decodes all formats to BGR, uint8


class HeaderError(ValueError):
    """Why there is no image in the bytes; the message has no file name yet."""


@dataclass(frozen=True)
class Header:
    """What the header states; `width` and `height` in pixels as stored, before EXIF.

    `encoded`: the bytes for the decoder. `orientation`: EXIF's, 1..8; None leaves it to the
    decoder. `beside`: bytes that the decoder holds until the pixels are decoded, such as
    coefficients. `copied`: bytes of the file that it copies.
    """

    form: str
    width: int
    height: int
    encoded: bytes = field(repr=False)
    orientation: int | None = 1
    beside: int = 0
    copied: int = 0

    def memory(self, by: int = 1) -> int:
        """Return the peak bytes of file and decoder when the sides are divided by `by`.

        OpenCV's Python binding copies the pixels when the decoder is done, and so does a turn.
        """
        pixels = CHANNELS * -(-self.width // by) * -(-self.height // by)
        return len(self.encoded) + self.copied + pixels + max(pixels, self.beside)
