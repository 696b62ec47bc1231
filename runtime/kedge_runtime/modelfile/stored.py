"""Read archives whose members are stored as they are, as those behind sealed TFLite files.

`zipfile` costs a device more than the rest of reading an artefact: it imports three compressors.
What looks unusual here is left to it (`archives.py`), with its checks and messages.
"""

import struct
import zlib
from typing import Any

# APPNOTE.TXT, 4.3.7, 4.3.12 and 4.3.16: a member's header, its directory entry, the archive's end.
_LOCAL = struct.Struct("<4s5H3L2H")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
MAX_BYTES = 32 << 20  # all members together; a contract with 1000 labels and its golden set: 1 MiB
MAX_MEMBERS = 1000
_SIGNATURES, _VERSION = (b"PK\1\2", b"PK\3\4"), 20
_ASCII_ONLY = 0  # flags: neither encrypted, nor sizes behind the member, nor another encoding


def stored_members(data: bytes, comment: int) -> dict[str, bytes] | None:
    """Return the members of an archive that ends in a comment of so many bytes, by name.

    None for an archive that is damaged, compressed or otherwise not as `tflite.tail` writes it.
    """
    try:
        return _members(data, len(data) - comment - _END.size, comment)
    except (struct.error, UnicodeDecodeError):
        return None


def _members(data: bytes, end: int, comment: int) -> dict[str, bytes] | None:
    signature, disk, start, here, count, size, at, length = _END.unpack_from(data, end)
    if (signature, disk, start, length) != (b"PK\5\6", 0, 0, comment) or here != count:
        return None
    members: dict[str, bytes] = {}
    if at + size != end or count > MAX_MEMBERS:
        return None
    for _ in range(count):
        entry = _ENTRY.unpack_from(data, at)
        name = data[at + _ENTRY.size : at + _ENTRY.size + entry[10]].decode("ascii")
        content = _content(data, entry, name)
        if content is None or name in members:
            return None
        members[name] = content
        at += _ENTRY.size + entry[10] + entry[11] + entry[12]
    return members if at == end and sum(map(len, members.values())) <= MAX_BYTES else None


def _content(data: bytes, entry: tuple[Any, ...], name: str) -> bytes | None:
    """Return a stored member whose header, size and checksum are right."""
    signature, _, version, flags, method, _, _, checksum, packed, size, *_, offset = entry
    local = _LOCAL.unpack_from(data, offset)
    begin = offset + _LOCAL.size
    begin, found = begin + local[9] + local[10], data[begin : begin + local[9]]
    content = data[begin : begin + size]
    right = (
        (signature, local[0], version, flags, method) == (*_SIGNATURES, _VERSION, _ASCII_ONLY, 0)
        and (packed, found) == (size, name.encode())
        and len(content) == size
        and zlib.crc32(content) == checksum
    )
    return content if right else None
