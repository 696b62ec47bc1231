"""Split images into shards, and remember finished shards so that an interrupted run resumes."""

import base64
import fcntl
import hashlib
import io
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.errors import KedgeError, UsageError
from kedge_runtime.files import unwritable
from kedge_runtime.image.folder import find_images

# Pictures done between two entries of a journal: some seconds of a small board's work.
SHARD = 32
DIGEST_BYTES = 32


@dataclass(frozen=True)
class Shard:
    """Some neighbouring pictures: `start` is the index of the first of `names`."""

    index: int
    start: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class Failure:
    """A picture that can't be read, and why. It is left out of every figure but counted."""

    image: str
    error: str


@dataclass(frozen=True)
class Pictures:
    """A folder's pictures: their paths below it, with `/`, sorted."""

    folder: Path
    names: tuple[str, ...]

    @classmethod
    def of(cls, folder: Path) -> "Pictures":
        """Search a folder. Raises UsageError when it is none or holds none."""
        found = find_images(folder, "--images")
        names = sorted(path.relative_to(folder).as_posix() for path in found)
        return cls(folder, tuple(names))

    def shards(self, size: int = SHARD) -> Iterator[Shard]:
        """Yield all pictures, `size` at a time."""
        for index, start in enumerate(range(0, len(self.names), size)):
            yield Shard(index, start, self.names[start : start + size])

    def fingerprint(self) -> str:
        """Return a SHA-256 that changes when a picture comes, goes or is written again."""
        hasher = hashlib.sha256()
        for name in self.names:
            hasher.update(os.fsencode(f"{name}{_state(self.folder / name)}\n"))
        return hasher.hexdigest()


def _state(path: Path) -> str:
    """Return a picture's size and time; none for one that isn't there, as reading it will tell."""
    try:
        status = path.stat()
    except OSError:
        return "\0"
    return f"\0{status.st_size}\0{status.st_mtime_ns}"


def content_digest(content: bytes) -> NDArray[np.uint8]:
    """Return a picture's SHA-256, uint8 [32]."""
    return np.frombuffer(hashlib.sha256(content).digest(), np.uint8)


SUFFIX = ".journal"
SCHEMA = 2
# A shard of 32 images with 21 000 classes takes 4 MB; a longer line is none of ours.
MAX_LINE = 64 << 20  # bytes
# Beside O_APPEND: nobody's link is followed, and a pipe isn't waited for.
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
Entry = dict[str, Any]
Kept = TypeVar("Kept")


def beside(path: Path) -> Path:
    """Return the place of the journal of the work that leads to a file."""
    return path.with_name(path.name + SUFFIX)


class Form(Protocol[Kept]):
    """How what is kept of a shard becomes plain data, and comes back."""

    def write(self, kept: Kept, /) -> Entry:
        """Return it as plain data."""

    def read(self, shard: int, entry: object, /) -> Kept:
        """Return what plain data stands for.

        Raises KedgeError or ValueError for what this work can't have noted of the shard.
        """


class Journal(Generic[Kept]):
    """The finished shards of one piece of work; a context manager that closes its file."""

    def __init__(self, path: Path, work: str, form: Form[Kept]) -> None:
        """Open the journal of `work`, a digest of all that has a part in the results.

        Raises UsageError when it can't be written, or another run is at it.
        """
        self.path, self.work, self.form = path, work, form
        head = json.dumps({"schema": SCHEMA, "work": work}).encode() + b"\n"
        try:
            self._file = _opened(path)
            length = self._intact(head)
            self._file.truncate(length)
            if not length:
                self._write(head)
        except OSError as error:
            raise self._refused(error, "choose another place") from None

    def __enter__(self) -> "Journal[Kept]":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file; it stays for the next run."""
        self._file.close()

    def add(self, shard: int, kept: Kept) -> None:
        """Note a finished shard; it is on the disk when this returns. Raises UsageError."""
        content = json.dumps({"shard": shard, **self.form.write(kept)}).encode()
        try:
            self._write(b"%s %s\n" % (self._checksum(content), content))
        except OSError as error:
            raise self._refused(error, "make room and run it again: it goes on from here") from None

    def entries(self) -> Iterator[tuple[int, Kept]]:
        """Yield the finished shards in the order in which they were noted."""
        with self.path.open("rb") as file:
            file.readline()
            for line in file:
                yield self._entry(line)

    def remove(self) -> None:
        """Delete it, the work being done."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _intact(self, head: bytes) -> int:
        """Return the length of what can be believed and is of the same work; 0 for nothing."""
        known = set[int]()
        with self.path.open("rb") as file:
            if file.readline(len(head)) != head:
                return 0
            length = len(head)
            while line := file.readline(MAX_LINE):
                try:
                    shard, _ = self._entry(line)
                except (KedgeError, ValueError, RecursionError):
                    break
                if shard in known:
                    break
                known.add(shard)
                length += len(line)
        return length

    def _entry(self, line: bytes) -> tuple[int, Kept]:
        """Return a line's shard and what was noted of it.

        Raises ValueError for a line that isn't whole, KedgeError or RecursionError for one that is
        of another kind.
        """
        checksum, _, content = line.partition(b" ")
        if not line.endswith(b"\n") or checksum != self._checksum(content[:-1]):
            raise ValueError("torn or damaged")
        entry = json.loads(content)
        if not isinstance(entry, dict) or type(shard := entry.pop("shard", None)) is not int:
            raise ValueError("names no shard")
        return shard, self.form.read(shard, entry)

    def _checksum(self, content: bytes) -> bytes:
        return hashlib.sha256(self.work.encode() + b"\n" + content).hexdigest().encode()

    def _write(self, line: bytes) -> None:
        # Unbuffered: what a full disk refused must not be written again when the file is closed.
        rest = memoryview(line)
        while rest:
            rest = rest[self._file.write(rest) :]
        os.fsync(self._file.fileno())

    def _refused(self, error: OSError, remedy: str) -> UsageError:
        return UsageError(f"{self.path}: {unwritable(error)}; {remedy}")


def _opened(path: Path) -> io.FileIO:
    """Open a journal for this process alone. Raises OSError, UsageError."""
    file = io.FileIO(os.open(path, _FLAGS, 0o666), "r+")
    try:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise UsageError(f"{path}: is no file, but a journal is kept there; remove it")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise UsageError(
            f"{path}: another run is at it; wait for that, or choose another place"
        ) from None
    except BaseException:
        file.close()
        raise
    return file


def packed(array: NDArray[Any]) -> str:
    """Return an array's bytes as text."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def unpacked(text: str, dtype: Any) -> NDArray[Any]:
    """Return what `packed` was given, flat. Raises ValueError for anything else."""
    return np.frombuffer(base64.b64decode(text, validate=True), dtype)
