"""Protocol Buffers' wire format, read in place: as much of it as ONNX files need.

Specification: protobuf.dev/programming-guides/encoding.
"""

from collections.abc import Iterator

LENGTH_DELIMITED = 2
_SKIPPED_BYTES = {1: 8, 5: 4}  # wire types of fixed length


def fields(message: bytes, within: slice | None = None) -> Iterator[tuple[int, int | slice]]:
    """Yield (number, value) of the fields that lie `within` a buffer (default: all of it).

    The value is an integer, or the slice where a string or message lies; nothing is copied. Fields
    of fixed length are passed over. Raises IndexError, KeyError, ValueError for other bytes.
    """
    at, end = (within.start, within.stop) if within else (0, len(message))
    while at < end:
        tag, at = read_varint(message, at)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == LENGTH_DELIMITED:
            length, at = read_varint(message, at)
            if at + length > end:
                raise ValueError("a field beyond the end of its message")
            yield number, slice(at, at + length)
            at += length
        elif wire_type == 0:
            value, at = read_varint(message, at)
            yield number, value
        else:
            at += _SKIPPED_BYTES[wire_type]


def parts(message: bytes, number: int, within: slice | None = None) -> Iterator[slice]:
    """Yield where the strings or messages with one field number lie."""
    for found, value in fields(message, within):
        if found == number and isinstance(value, slice):
            yield value


def read_varint(message: bytes, at: int) -> tuple[int, int]:
    """Return the integer at a place, and the place behind it. Raises IndexError, ValueError."""
    value = 0
    for shift in range(0, 64, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("an integer of more than ten bytes")
