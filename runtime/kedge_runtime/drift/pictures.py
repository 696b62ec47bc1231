"""The pictures of a comparison: known by their name below the folder, in one fixed order."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.pictures import find

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
        found = find(folder, "--images")
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
