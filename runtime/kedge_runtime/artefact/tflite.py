"""TFLite: the members lie in a zip behind the flatbuffer, the digest in the zip's comment.

Interpreters ignore what follows the flatbuffer, and `zipfile` finds an archive from its end. The
members are stored as they are: MediaPipe reads labels there, and refuses an archive that is packed.
"""

import io
import struct
import zipfile

from kedge_runtime.artefact.content import ModelContent
from kedge_runtime.modelfile.archives import is_archive, read_members

# The end of a zip's directory: 20 bytes, the comment's length, the comment (APPNOTE.TXT, 4.3.16).
_LENGTH, _BEFORE_LENGTH = struct.Struct("<H"), 20


def append(model: bytes, members: dict[str, bytes], *, room: int) -> bytes:
    """Return model + zip(members), ending in a zip comment of `room` bytes."""
    file = io.BytesIO(model)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            # A ZipInfo without a time is dated 1980: the same members, the same bytes.
            archive.writestr(zipfile.ZipInfo(name), content)
        archive.comment = bytes(room)
    return file.getvalue()


def with_room(content: bytes, old: int, new: int) -> bytes:
    """Replace the zip's comment of `old` bytes by `new` zero bytes. Raises ValueError."""
    at = len(content) - old - _LENGTH.size
    if content[at - _BEFORE_LENGTH : at][:4] != b"PK\5\6" or content[at : at + 2] != _LENGTH.pack(
        old
    ):
        raise ValueError("it doesn't end in a zip's comment")
    return content[:at] + _LENGTH.pack(new) + bytes(new)


def read(content: ModelContent) -> dict[str, bytes]:
    """Return the members by name. Raises ArtefactError when they are damaged or far too large."""
    return read_members(io.BytesIO(content.data), str(content.path))


def split(content: bytes) -> tuple[bytes, dict[str, bytes]]:
    """Return the flatbuffer, and the members of the archive behind it that aren't kedge's."""
    if not is_archive(content):
        return content, {}
    file = io.BytesIO(content)
    members = read_members(file, "the archive behind the model")
    with zipfile.ZipFile(file) as archive:
        begins = [archive.start_dir, *(info.header_offset for info in archive.infolist())]
    others = {name: each for name, each in members.items() if not name.startswith("kedge/")}
    return content[: max(min(begins), 0)], others
