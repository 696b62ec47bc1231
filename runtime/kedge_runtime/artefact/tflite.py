"""Add members to a TFLite file: a zip behind the flatbuffer, with the digest as its comment.

Interpreters ignore bytes behind the flatbuffer, and `zipfile` finds an archive from its end. The
members are stored uncompressed: MediaPipe reads labels there, and refuses compressed archives.
"""

import io
import struct
from collections.abc import Mapping

from kedge_runtime.artefact.content import DIGEST_BYTES, ModelContent
from kedge_runtime.errors import about
from kedge_runtime.modelfile.stored import stored_members

# The end of a zip's directory: 20 bytes, the comment's length, the comment (APPNOTE.TXT, 4.3.16).
_LENGTH, _BEFORE_LENGTH = struct.Struct("<H"), 20


class _Behind(io.BytesIO):
    """A file without the first `start` bytes, whose offsets count from their beginning."""

    def __init__(self, start: int) -> None:
        super().__init__()
        self._start = start

    def tell(self) -> int:
        return self._start + super().tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._start + super().seek(offset - (0 if whence else self._start), whence)


def tail(size: int, members: Mapping[str, bytes], *, room: int) -> bytes:
    """Return zip(members) for a model of `size` bytes, ending in a zip comment of `room` bytes."""
    import zipfile

    file = _Behind(size)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            # A ZipInfo without a time is dated 1980: the same members, the same bytes.
            archive.writestr(zipfile.ZipInfo(name), content)
        archive.comment = bytes(room)
    return file.getvalue()


def with_room(content: bytes, old: int, new: int) -> bytes:
    """Replace the zip's comment of `old` bytes by `new` zero bytes. Raises ValueError."""
    at = len(content) - old - _LENGTH.size
    start = content[at - _BEFORE_LENGTH : at][:4]
    if start != b"PK\5\6" or content[at : at + 2] != _LENGTH.pack(old):
        raise ValueError("it doesn't end in a zip's comment")
    return content[:at] + _LENGTH.pack(new) + bytes(new)


def read(content: ModelContent) -> dict[str, bytes]:
    """Return the members by name. Raises ArtefactError when they are damaged or far too large."""
    members = stored_members(content.data, DIGEST_BYTES)
    if members is not None:
        return members
    from kedge_runtime.modelfile.archives import read_members  # see stored.py

    with about(content.path):
        return read_members(io.BytesIO(content.data))


def split(content: bytes) -> tuple[memoryview, dict[str, bytes]]:
    """Return the flatbuffer, and the members behind it that other programs wrote.

    Raises ArtefactError for a damaged archive.
    """
    import zipfile

    from kedge_runtime.modelfile.archives import is_archive, read_members

    if not is_archive(content):
        return memoryview(content), {}
    file = io.BytesIO(content)
    with about("the archive behind the model"):
        members = read_members(file)
    with zipfile.ZipFile(file) as archive:
        starts = [archive.start_dir, *(info.header_offset for info in archive.infolist())]
    others = {name: each for name, each in members.items() if not name.startswith("kedge/")}
    return memoryview(content)[: max(min(starts), 0)], others
