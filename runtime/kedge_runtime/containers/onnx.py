"""ONNX: the members are `metadata_props` of the model, the digest is the last of them.

Protocol Buffers may be concatenated: a field that follows a message belongs to it. So the entries
are appended to the file without parsing the model, and a device reads them back without onnx.
Wire format: protobuf.dev/programming-guides/encoding; field numbers: onnx/onnx.proto.
"""

import base64
import mmap
from collections.abc import Iterator
from pathlib import Path

METADATA_PROPS = 14  # ModelProto.metadata_props
KEY, VALUE = 1, 2  # StringStringEntryProto
LENGTH_DELIMITED = 2
_SKIPPED_BYTES = {1: 8, 5: 4}  # wire types of fixed length

Buffer = bytes | mmap.mmap


def append(model: bytes, members: dict[str, bytes], *, room: int) -> bytes:
    """Return the model with one metadata entry per member and a last one of `room` bytes."""
    entries = [_entry(name, _to_text(name, content)) for name, content in members.items()]
    return model + b"".join(entries) + _entry("kedge/digest", bytes(room))


def read(path: Path) -> dict[str, bytes]:
    """Return the members by name."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as model:
        entries = [
            dict(_length_delimited(entry))
            for number, entry in _length_delimited(model)
            if number == METADATA_PROPS
        ]
    pairs = [(entry[KEY].decode(), entry[VALUE]) for entry in entries]
    return {key: _from_text(key, value) for key, value in pairs if key.startswith("kedge/")}


def _to_text(name: str, content: bytes) -> bytes:
    # Metadata values are text by the specification: binary members travel as base64.
    return content if name.endswith(".json") else base64.b64encode(content)


def _from_text(name: str, value: bytes) -> bytes:
    binary = name.endswith(".npz")
    return base64.b64decode(value, validate=True) if binary else value


def _entry(key: str, value: bytes) -> bytes:
    return _field(METADATA_PROPS, _field(KEY, key.encode()) + _field(VALUE, value))


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | LENGTH_DELIMITED) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def _length_delimited(message: Buffer) -> Iterator[tuple[int, bytes]]:
    """Yield (number, content) of the fields that metadata is made of; the others are skipped."""
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == LENGTH_DELIMITED:
            length, at = _read_varint(message, at)
            if number in (METADATA_PROPS, KEY, VALUE):
                yield number, message[at : at + length]
            at += length
        elif wire_type == 0:
            _, at = _read_varint(message, at)
        else:
            at += _SKIPPED_BYTES[wire_type]


def _read_varint(message: Buffer, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
