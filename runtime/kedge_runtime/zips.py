"""Zip archives of unknown origin: read whole, but never beyond a bound.

Anybody can seal a file, so a right digest says nothing of what an archive unpacks to.
"""

import errno
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from kedge_runtime.content import open_plain
from kedge_runtime.errors import ArtefactError

MAX_BYTES = 32 << 20  # all members together; a contract with 1000 labels and its golden set: 1 MiB
MAX_MEMBERS = 1000
# Of the list of members, which zipfile unpacks whole: to ten times its size.
MAX_DIRECTORY = 1 << 20

# What zipfile lets through on damaged, encrypted (RuntimeError) and strangely packed archives.
FAULTS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    RuntimeError,
    ValueError,
    EOFError,
    OverflowError,
)


def read_members(archive: Path | io.BytesIO, where: str) -> dict[str, bytes]:
    """Return the members by name; `where` names the archive and heads every message.

    Raises ArtefactError for damage, encryption, members that unpack to more than MAX_BYTES in all,
    and more than MAX_MEMBERS of them; OSError when the file can't be read.
    """
    try:
        with opened(archive) as members:
            _check(members.infolist(), where)
            return {info.filename: members.read(info) for info in members.infolist()}
    except FAULTS as error:
        raise ArtefactError(f"{where}: no readable archive ({error}); convert again") from None


@contextmanager
def opened(archive: Path | IO[bytes]) -> Iterator[zipfile.ZipFile]:
    """Yield an archive. Raises one of FAULTS for damage, OSError when the file can't be read."""
    try:
        with ExitStack() as stack:
            file = (
                stack.enter_context(open_plain(archive)) if isinstance(archive, Path) else archive
            )
            guarded = _Guarded(file)
            found = stack.enter_context(zipfile.ZipFile(guarded))
            guarded.bound = None
            yield found
    except OSError as error:
        # An offset before the beginning of a file: in memory it is a ValueError.
        if error.errno == errno.EINVAL:
            raise zipfile.BadZipFile("an offset outside the file") from None
        raise


class _Guarded(io.RawIOBase):
    """A file of which zipfile may read `bound` bytes at once, whatever the archive claims."""

    def __init__(self, file: io.RawIOBase | IO[bytes]) -> None:
        """Take the file, which stays the caller's."""
        self._file = file
        self.bound: int | None = MAX_DIRECTORY

    def read(self, size: int | None = -1, /) -> bytes:
        """Return bytes. Raises BadZipFile for more than the bound."""
        if self.bound is None:
            return self._file.read(-1 if size is None else size)
        asked = self.bound + 1 if size is None or size < 0 else size
        content = self._file.read(min(asked, self.bound + 1))
        if len(content) > self.bound:
            raise zipfile.BadZipFile(f"a list of members of more than {self.bound} bytes")
        return content

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a place."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the place."""
        return self._file.tell()

    def seekable(self) -> bool:
        """Say that places can be gone to."""
        return True


def is_archive(content: bytes | Path) -> bool:
    """Whether bytes, or a file, end in an archive, damaged or not. Raises OSError."""
    try:
        return zipfile.is_zipfile(io.BytesIO(content) if isinstance(content, bytes) else content)
    except FAULTS:  # it has an end that looks like one
        return True


def _check(members: list[zipfile.ZipInfo], where: str) -> None:
    # zipfile stops reading at the size that a member states, so the stated sizes can be trusted.
    size = sum(info.file_size for info in members)
    if size > MAX_BYTES:
        raise ArtefactError(f"{where}: unpacks to {size} bytes, allowed are {MAX_BYTES}")
    if len(members) > MAX_MEMBERS:
        raise ArtefactError(f"{where}: {len(members)} members, allowed are {MAX_MEMBERS}")
    methods = {info.compress_type for info in members}
    if not methods <= {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise ArtefactError(f"{where}: packed by another method than deflate; convert again")
