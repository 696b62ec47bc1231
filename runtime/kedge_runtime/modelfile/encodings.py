"""Read FlatBuffers and Protocol Buffers in place: as much as TFLite and ONNX files need."""

import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_SIGNED, _OFFSET, _SHORT = struct.Struct("<i"), struct.Struct("<I"), struct.Struct("<H")
_SCALARS = {kind: struct.Struct(f"<{kind}") for kind in "?bBhHiIqQfd"}
MAX_ITEMS = 1 << 20  # of one vector; a network has thousands of tensors, not millions


@dataclass(frozen=True, slots=True)
class Table:
    """A FlatBuffers table at the offset `at` of a buffer; an absent field has its default.

    Every method raises ValueError, IndexError or struct.error for damaged bytes. `kind` is a format
    character of `struct`, little-endian. `layouts`: cache of the fields' offsets, by the offset of
    the layout; a file has few layouts and many tables.
    """

    buffer: memoryview
    at: int
    layouts: dict[int, tuple[int, ...]] = field(default_factory=dict, repr=False, compare=False)

    def number(self, field: int, kind: str, default: int = 0) -> int:
        """Return a scalar field."""
        place = self._place(field)
        if not place:
            return default
        (value,) = _SCALARS[kind].unpack_from(self.buffer, place)
        return int(value)

    def real(self, field: int) -> float:
        """Return a field of float32, 0 for an absent one."""
        place = self._place(field)
        return float(_SCALARS["f"].unpack_from(self.buffer, place)[0]) if place else 0.0

    def table(self, field: int) -> "Table | None":
        """Return the table that a field points to."""
        place = self._place(field)
        return Table(self.buffer, self._follow(place), self.layouts) if place else None

    def tables(self, field: int) -> Iterator["Table"]:
        """Yield the tables of a vector."""
        first, count = self._vector(field, 4)
        for place in range(first, first + 4 * count, 4):
            yield Table(self.buffer, self._follow(place), self.layouts)

    def numbers(self, field: int, kind: str) -> tuple[Any, ...]:
        """Return a vector of scalars."""
        first, count = self._vector(field, _SCALARS[kind].size)
        return struct.unpack_from(f"<{count}{kind}", self.buffer, first)

    def text(self, field: int) -> str:
        """Return a string, its bytes replaced where they aren't UTF-8."""
        return bytes(self.raw(field)).decode(errors="replace")

    def raw(self, field: int) -> memoryview:
        """Return a vector of bytes in place, of any length."""
        place = self._place(field)
        first = self._follow(place) if place else 0
        return self._bytes(first + 4, self._length(first)) if place else self.buffer[:0]

    def _place(self, field: int) -> int:
        """Return where a field lies, or 0 for an absent one."""
        start = self.at - _SIGNED.unpack_from(self.buffer, self.at)[0]
        layout = self.layouts.get(start)
        if layout is None:
            layout = self.layouts[start] = self._layout(start)
        offset = layout[field] if field < len(layout) else 0
        return self.at + offset if offset else 0

    def _layout(self, start: int) -> tuple[int, ...]:
        """Return the offset of each field from its table, 0 for an absent one."""
        if start < 0:
            raise ValueError("a table before the beginning of the file")
        (size,) = _SHORT.unpack_from(self.buffer, start)
        count = max(0, size - 4) // 2
        return struct.unpack_from(f"<{count}H", self.buffer, start + 4)

    def _vector(self, field: int, size: int) -> tuple[int, int]:
        place = self._place(field)
        if not place:
            return 0, 0
        first = self._follow(place)
        count = self._length(first)
        if count > MAX_ITEMS:
            raise ValueError(f"a list of {count} items")
        self._bytes(first + 4, count * size)
        return first + 4, count

    def _follow(self, place: int) -> int:
        offset: int = _OFFSET.unpack_from(self.buffer, place)[0]
        return place + offset

    def _length(self, place: int) -> int:
        count: int = _OFFSET.unpack_from(self.buffer, place)[0]
        return count

    def _bytes(self, first: int, length: int) -> memoryview:
        if first + length > len(self.buffer):
            raise ValueError("a list beyond the end of the file")
        return self.buffer[first : first + length]


def root(buffer: memoryview, identifier: bytes) -> Table:
    """Return the root table of a file with this identifier, four bytes. Raises as Table does."""
    if bytes(buffer[4:8]) != identifier:
        raise ValueError(f"the bytes 4 to 8 aren't {identifier.decode()}")
    (at,) = struct.unpack_from("<I", buffer, 0)
    return Table(buffer, int(at))


LENGTH_DELIMITED = 2
_SKIPPED_BYTES = {1: 8, 5: 4}  # wire types of fixed length


def fields(message: bytes, within: slice | None = None) -> Iterator[tuple[int, int | slice]]:
    """Yield (number, value) of the fields that lie `within` a buffer (default: all of it).

    The value is an integer, or the slice where a string or message lies; nothing is copied. Fields
    of fixed length are skipped. Raises IndexError, KeyError, ValueError for other bytes.
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
    for field_number, value in fields(message, within):
        if field_number == number and isinstance(value, slice):
            yield value


class Message:
    """A Protocol Buffers message in place, with its fields by number.

    Where a field that may come once comes again, the last one counts. Every method raises
    IndexError, KeyError or ValueError for damaged bytes.
    """

    __slots__ = ("buffer", "fields")

    def __init__(self, buffer: bytes, within: slice | None = None) -> None:
        """Read the fields that lie `within` a buffer (default: all of it)."""
        self.buffer = buffer
        self.fields: defaultdict[int, list[int | slice]] = defaultdict(list)
        for number, value in fields(buffer, within):
            self.fields[number].append(value)

    def __contains__(self, number: int) -> bool:
        """Return whether a field is there."""
        return number in self.fields

    def slices(self, number: int) -> list[slice]:
        """Return where the strings or messages of a field lie."""
        return [value for value in self.fields.get(number, ()) if isinstance(value, slice)]

    def messages(self, number: int) -> "list[Message]":
        """Return the messages of a repeated field."""
        return [Message(self.buffer, each) for each in self.slices(number)]

    def message(self, number: int) -> "Message | None":
        """Return the message of a field, None for an absent one."""
        slices = self.slices(number)
        return Message(self.buffer, slices[-1]) if slices else None

    def texts(self, number: int) -> list[str]:
        """Return the strings of a repeated field."""
        return [self.buffer[each].decode() for each in self.slices(number)]

    def text(self, number: int, errors: str = "strict") -> str:
        """Return a string, "" for an absent one; `errors`: as in `bytes.decode`."""
        slices = self.slices(number)
        return self.buffer[slices[-1]].decode(errors=errors) if slices else ""

    def numbers(self, number: int) -> tuple[int, ...]:
        """Return the signed integers of a repeated field, written one by one or packed."""
        result: list[int] = []
        for value in self.fields.get(number, ()):
            if isinstance(value, int):
                result.append(value)
                continue
            at = value.start
            while at < value.stop:
                integer, at = read_varint(self.buffer, at)
                result.append(integer)
        return tuple(value - (1 << 64) if value >> 63 else value for value in result)

    def number(self, number: int, default: int = 0) -> int:
        """Return a signed integer."""
        return (self.numbers(number) or (default,))[-1]


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
