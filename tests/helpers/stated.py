"""What an image's header states, and why it is refused: for the tests of each format."""

from typing import NamedTuple

import pytest

from kedge_runtime.image.header import HeaderError, read_header

CUT = "cut short or damaged; copy it again"


class Stated(NamedTuple):
    """What a header states."""

    format: str
    width: int
    height: int
    orientation: int | None = 1
    beside: int = 0
    copied: int = 0


def stated(content: bytes) -> Stated:
    header = read_header(content)
    return Stated(*(getattr(header, name) for name in Stated._fields))


def refusal(content: bytes) -> str:
    with pytest.raises(HeaderError) as caught:
        read_header(content)
    return str(caught.value)
