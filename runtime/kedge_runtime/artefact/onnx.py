"""Add members to an ONNX file: `metadata_props` of the model, of which the digest is the last.

Protocol Buffers may be concatenated: a field that follows a message belongs to it. So the entries
are appended to the file without parsing the model, and a device reads them without onnx.
Field numbers: onnx/onnx.proto.
"""

import base64
from collections.abc import Mapping

from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.modelfile.encodings import LENGTH_DELIMITED, fields, parts

METADATA_PROPS = 14  # ModelProto.metadata_props
KEY, VALUE = 1, 2  # StringStringEntryProto


def tail(size: int, members: Mapping[str, bytes], *, room: int) -> bytes:
    """Return one metadata entry per member and a last one of `room` bytes, for any model."""
    entries = [_entry(name, _to_text(name, content)) for name, content in members.items()]
    return b"".join((*entries, _last(room)))


def with_room(content: bytes, old: int, new: int) -> bytes:
    """Replace the last entry's value of `old` bytes by `new` zero bytes. Raises ValueError."""
    before = len(content) - len(_last(old))
    if content[before : len(content) - old] != _last(old)[:-old]:
        raise ValueError("it doesn't end in the entry kedge/digest")
    return content[:before] + _last(new)


def read(content: ModelContent) -> dict[str, bytes]:
    """Return the members by name."""
    model = content.data
    pairs = [_pair(model, place) for place in parts(model, METADATA_PROPS)]
    return {key: _from_text(key, value) for key, value in pairs if key.startswith("kedge/")}


def split(content: bytes) -> tuple[memoryview, dict[str, bytes]]:
    """Return the model without kedge's entries; other programs' entries stay in it."""
    for place in parts(content, METADATA_PROPS):
        key, _ = _pair(content, place)
        if key.startswith("kedge/"):
            # `tail` put them last: the model ends before the first one's tag and length.
            end = place.start - 1 - len(_varint(place.stop - place.start))
            return memoryview(content)[:end], {}
    return memoryview(content), {}


def _pair(model: bytes, place: slice) -> tuple[str, bytes]:
    entry = {number: model[at] for number, at in fields(model, place) if isinstance(at, slice)}
    return entry[KEY].decode(), entry[VALUE]


def _to_text(name: str, content: bytes) -> bytes:
    # Metadata values are text by the specification: binary members travel as base64.
    return content if name.endswith(".json") else base64.b64encode(content)


def _from_text(name: str, value: bytes) -> bytes:
    binary = name.endswith(".npz")
    return base64.b64decode(value, validate=True) if binary else value


def _last(room: int) -> bytes:
    return _entry("kedge/digest", bytes(room))


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
