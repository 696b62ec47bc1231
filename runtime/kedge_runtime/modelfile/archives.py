"""Read zip and npz archives of unknown origin: bounded, without pickle."""

import errno
import io
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.artefact.content import open_plain
from kedge_runtime.errors import ArtefactError
from kedge_runtime.modelfile.stored import MAX_BYTES, MAX_MEMBERS

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


def read_members(archive: Path | io.BytesIO) -> dict[str, bytes]:
    """Return the members of an archive by name.

    Raises ArtefactError, without the archive's name, for damage, encryption, more than MAX_MEMBERS
    members, and members that unpack to more than MAX_BYTES; OSError when the file can't be read.
    """
    try:
        with opened(archive) as members:
            _check(members.infolist())
            return {info.filename: members.read(info) for info in members.infolist()}
    except FAULTS as error:
        raise ArtefactError(f"no readable archive ({error}); convert again") from None


@contextmanager
def opened(archive: Path | IO[bytes]) -> Iterator[zipfile.ZipFile]:
    """Open an archive. Raises one of FAULTS for damage, OSError when the file can't be read."""
    try:
        with ExitStack() as stack:
            file = (
                stack.enter_context(open_plain(archive)) if isinstance(archive, Path) else archive
            )
            guarded = _Guarded(file)
            members = stack.enter_context(zipfile.ZipFile(guarded))
            guarded.bound = None
            yield members
    except OSError as error:
        # An offset before the start of a file; in memory it is a ValueError.
        if error.errno == errno.EINVAL:
            raise zipfile.BadZipFile("an offset outside the file") from None
        raise


class _Guarded(io.RawIOBase):
    """A file that lets zipfile read `bound` bytes at once, whatever size the archive states."""

    def __init__(self, file: io.RawIOBase | IO[bytes]) -> None:
        """Take the file; the caller closes it."""
        self._file = file
        self.bound: int | None = MAX_DIRECTORY

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next bytes. Raises BadZipFile for more than the bound."""
        if self.bound is None:
            return self._file.read(-1 if size is None else size)
        requested = self.bound + 1 if size is None or size < 0 else size
        content = self._file.read(min(requested, self.bound + 1))
        if len(content) > self.bound:
            raise zipfile.BadZipFile(f"a list of members of more than {self.bound} bytes")
        return content

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to an offset and return it."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the offset."""
        return self._file.tell()

    def seekable(self) -> bool:
        """Return True."""
        return True


def is_archive(content: bytes | Path) -> bool:
    """Return whether bytes, or a file, end in an archive, damaged or not. Raises OSError."""
    try:
        return zipfile.is_zipfile(io.BytesIO(content) if isinstance(content, bytes) else content)
    except FAULTS:  # it has an end that looks like one
        return True


def _check(members: list[zipfile.ZipInfo]) -> None:
    # zipfile stops reading at the size that a member states, so the stated sizes can be trusted.
    size = sum(info.file_size for info in members)
    if size > MAX_BYTES:
        raise ArtefactError(f"unpacks to {size} bytes, allowed are {MAX_BYTES}")
    if len(members) > MAX_MEMBERS:
        raise ArtefactError(f"{len(members)} members, allowed are {MAX_MEMBERS}")
    methods = {info.compress_type for info in members}
    if not methods <= {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise ArtefactError("packed by another method than deflate; convert again")


Arrays = dict[str, NDArray[Any]]

# The header that numpy.save writes (NEP 1) before booleans, numbers or text, rows first.
# numpy's own reader evaluates any Python literal there.
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([<>|]?[biufU]\d{1,6})', "
    rb"'fortran_order': False, 'shape': \(([\d, ]{0,99})\), \} *\n",
    re.DOTALL,
)


def read_arrays(content: bytes) -> Arrays:
    """Return the arrays of an .npz archive by name, read-only.

    numpy.load would allocate any size that a header states. Raises ArtefactError for anything that
    numpy.savez doesn't write.
    """
    members = read_members(io.BytesIO(content))
    try:
        return {name.removesuffix(".npy"): read_array(npy) for name, npy in members.items()}
    except ValueError as error:
        raise ArtefactError(f"no readable arrays ({error}); convert again") from None


def read_array(npy: bytes) -> NDArray[Any]:
    """Return the array of an .npy file. Raises ValueError unless its bytes match its header."""
    header = read_header(npy)
    size = len(npy) - header.offset
    if header.size != size:
        raise ValueError(f"{size} bytes for an array of {header.dtype} {header.shape}"[:100])
    count = math.prod(header.shape)
    return np.frombuffer(npy, header.dtype, count, header.offset).reshape(header.shape)


class ArrayHeader(NamedTuple):
    """An .npy file's header; the array's numbers start at `offset` and take `size` bytes."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        """The bytes of the numbers."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(npy: bytes) -> ArrayHeader:
    """Return the header of an .npy file from its first bytes. Raises ValueError for another one."""
    match = _HEADER.match(npy)
    if match is None:
        raise ValueError("not of version 1.0 of npy, or not of plain numbers")
    shape = tuple(int(side) for side in match[2].split(b",") if side.strip())
    try:
        dtype = np.dtype(match[1].decode())
    except TypeError as error:
        raise ValueError(str(error)) from None
    return ArrayHeader(dtype, shape, match.end())
