"""Split images into shards, and keep finished shards so that an interrupted run resumes."""

import base64
import fcntl
import hashlib
import io
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.errors import KedgeError, UsageError
from kedge_runtime.files import unwritable
from kedge_runtime.frozen import dataclass
from kedge_runtime.image.folder import find_images

# Images between two entries of a journal: some seconds on a small board.
SHARD = 32
DIGEST_BYTES = 32


@dataclass(frozen=True)
class Shard:
    """Hold some neighbouring images; `start`: the index of the first of `names`."""

    index: int
    start: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class Failure:
    """Hold the name of an unreadable image and the error. No figure includes it."""

    image: str
    error: str


@dataclass(frozen=True)
class ImageFolder:
    """Hold a folder and its images: their paths below it, with `/`, sorted."""

    folder: Path
    names: tuple[str, ...]

    @classmethod
    def of(cls, folder: Path) -> "ImageFolder":
        """Search a folder. Raises UsageError when there is no folder or no image in it."""
        paths = find_images(folder, "--images")
        names = sorted(path.relative_to(folder).as_posix() for path in paths)
        return cls(folder, tuple(names))

    def shards(self, size: int = SHARD) -> Iterator[Shard]:
        """Yield all images, `size` at a time."""
        for index, start in enumerate(range(0, len(self.names), size)):
            yield Shard(index, start, self.names[start : start + size])

    def fingerprint(self) -> str:
        """Return a SHA-256 that changes when an image is added, removed or rewritten."""
        hasher = hashlib.sha256()
        for name in self.names:
            hasher.update(os.fsencode(f"{name}{_state(self.folder / name)}\n"))
        return hasher.hexdigest()


def _state(path: Path) -> str:
    """Return an image's size and time; a constant for a missing one, which fails later."""
    try:
        status = path.stat()
    except OSError:
        return "\0"
    return f"\0{status.st_size}\0{status.st_mtime_ns}"


def content_digest(content: bytes) -> NDArray[np.uint8]:
    """Return an image's SHA-256, uint8 [32]."""
    return np.frombuffer(hashlib.sha256(content).digest(), np.uint8)


SUFFIX = ".journal"
SCHEMA = 2
# A shard of 32 images with 21 000 classes takes 4 MB; a longer line is damaged.
MAX_LINE = 64 << 20  # bytes
# O_NOFOLLOW: no link is followed; O_NONBLOCK: opening a pipe doesn't wait.
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
Entry = dict[str, Any]
Result = TypeVar("Result")


def beside(path: Path) -> Path:
    """Return the path of the journal for the work that writes a file."""
    return path.with_name(path.name + SUFFIX)


class ShardCodec(Protocol[Result]):
    """Turn the result of a shard into plain data and back."""

    def write(self, result: Result, /) -> Entry:
        """Return a result as plain data."""

    def read(self, shard: int, entry: object, /) -> Result:
        """Return the result in plain data.

        Raises KedgeError or ValueError for data that this work can't have written.
        """


class Journal(Generic[Result]):
    """Keep the finished shards of one piece of work; a context manager that closes its file."""

    def __init__(self, path: Path, work: str, codec: ShardCodec[Result]) -> None:
        """Open the journal of `work`, a digest of everything that changes the results.

        Raises UsageError when it can't be written, or another run uses it.
        """
        self.path, self.work, self.codec = path, work, codec
        head = json.dumps({"schema": SCHEMA, "work": work}).encode() + b"\n"
        try:
            self._file = _opened(path)
            length = self._intact(head)
            self._file.truncate(length)
            if not length:
                self._write(head)
        except OSError as error:
            raise self._refused(error, "choose another path") from None

    def __enter__(self) -> "Journal[Result]":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file; it stays for the next run."""
        self._file.close()

    def add(self, shard: int, result: Result) -> None:
        """Append a finished shard and sync it to the disk. Raises UsageError."""
        content = json.dumps({"shard": shard, **self.codec.write(result)}).encode()
        try:
            self._write(b"%s %s\n" % (self._checksum(content), content))
        except OSError as error:
            raise self._refused(
                error, "free some space and run again: the run resumes here"
            ) from None

    def entries(self) -> Iterator[tuple[int, Result]]:
        """Yield the finished shards in the order in which they were added."""
        with self.path.open("rb") as file:
            file.readline()
            for line in file:
                yield self._entry(line)

    def remove(self) -> None:
        """Delete the journal after the work."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _intact(self, head: bytes) -> int:
        """Return the length of the valid entries of this work, 0 for none."""
        seen = set[int]()
        with self.path.open("rb") as file:
            if file.readline(len(head)) != head:
                return 0
            length = len(head)
            while line := file.readline(MAX_LINE):
                try:
                    shard, _ = self._entry(line)
                except (KedgeError, ValueError, RecursionError):
                    break
                if shard in seen:
                    break
                seen.add(shard)
                length += len(line)
        return length

    def _entry(self, line: bytes) -> tuple[int, Result]:
        """Return a line's shard and its result.

        Raises ValueError for a torn line, KedgeError or RecursionError for other content.
        """
        checksum, _, content = line.partition(b" ")
        if not line.endswith(b"\n") or checksum != self._checksum(content[:-1]):
            raise ValueError("torn or damaged")
        entry = json.loads(content)
        if not isinstance(entry, dict) or type(shard := entry.pop("shard", None)) is not int:
            raise ValueError("names no shard")
        return shard, self.codec.read(shard, entry)

    def _checksum(self, content: bytes) -> bytes:
        return hashlib.sha256(self.work.encode() + b"\n" + content).hexdigest().encode()

    def _write(self, line: bytes) -> None:
        # Unbuffered: what a full disk refuses must not be written when the file is closed.
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
            raise UsageError(
                f"{path}: the journal needs this name, and it is no regular file; remove it"
            )
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise UsageError(
            f"{path}: another run uses this journal; wait for it, or choose another path"
        ) from None
    except BaseException:
        file.close()
        raise
    return file


def packed(array: NDArray[Any]) -> str:
    """Return an array's bytes as text."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def unpacked(text: str, dtype: Any) -> NDArray[Any]:
    """Return the array of `packed`, flat. Raises ValueError for other text."""
    return np.frombuffer(base64.b64decode(text, validate=True), dtype)
