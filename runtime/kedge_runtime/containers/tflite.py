"""TFLite: the members lie in a zip behind the flatbuffer, the digest in the zip's comment.

Interpreters ignore what follows the flatbuffer, and `zipfile` finds an archive from its end. The
members are stored as they are: MediaPipe reads labels there, and refuses an archive that is packed.
"""

import io
import zipfile

from kedge_runtime.content import ModelContent
from kedge_runtime.zips import read_members


def append(model: bytes, members: dict[str, bytes], *, room: int) -> bytes:
    """Return model + zip(members), ending in a zip comment of `room` bytes."""
    file = io.BytesIO(model)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            # A ZipInfo without a time is dated 1980: the same members, the same bytes.
            archive.writestr(zipfile.ZipInfo(name), content)
        archive.comment = bytes(room)
    return file.getvalue()


def read(content: ModelContent) -> dict[str, bytes]:
    """Return the members by name. Raises ArtefactError when they are damaged or far too large."""
    return read_members(io.BytesIO(content.data), str(content.path))


def split(content: bytes) -> tuple[bytes, dict[str, bytes]]:
    """Return the flatbuffer, and the members of the archive behind it that aren't kedge's."""
    file = io.BytesIO(content)
    if not zipfile.is_zipfile(file):
        return content, {}
    members = read_members(file, "the archive behind the model")
    with zipfile.ZipFile(file) as archive:
        begins = [archive.start_dir, *(info.header_offset for info in archive.infolist())]
    others = {name: each for name, each in members.items() if not name.startswith("kedge/")}
    return content[: max(min(begins), 0)], others
