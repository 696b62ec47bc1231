"""A file that remembers finished shards, so that a run which was stopped goes on where it was.

Its first line says what the work is; another one's journal is begun anew. Each later line is a
shard, synced to the disk before the next begins. A torn last line is cut off.
"""

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.errors import UsageError, reason_of

SUFFIX = ".journal"
Entry = dict[str, Any]


def beside(path: Path) -> Path:
    """Return the place of the journal of the work that leads to a file."""
    return path.with_name(path.name + SUFFIX)


class Journal:
    """The finished shards of one piece of work; a context manager that closes its file."""

    def __init__(self, path: Path, work: str) -> None:
        """Open the journal of `work`, a digest of all that has a part in the results.

        Raises UsageError when it can't be written.
        """
        self.path = path
        head = json.dumps({"schema": 1, "work": work}).encode() + b"\n"
        try:
            self._file = path.open("a+b")
            length = _intact(path, head)
            self._file.truncate(length)
            if not length:
                self._write(head)
        except OSError as error:
            reason = reason_of(error)
            raise UsageError(f"{path}: can't be written ({reason}); choose another place") from None

    def __enter__(self) -> "Journal":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file; it stays for the next run."""
        self._file.close()

    def add(self, shard: int, entry: Entry) -> None:
        """Note a finished shard; it is on the disk when this returns."""
        self._write(json.dumps({"shard": shard, **entry}).encode() + b"\n")

    def entries(self) -> Iterator[tuple[int, Entry]]:
        """Yield the finished shards in the order in which they were noted."""
        with self.path.open("rb") as file:
            file.readline()
            for line in file:
                entry = json.loads(line)
                yield entry.pop("shard"), entry

    def remove(self) -> None:
        """Delete it, the work being done."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _write(self, line: bytes) -> None:
        self._file.write(line)
        self._file.flush()
        os.fsync(self._file.fileno())


def _intact(path: Path, head: bytes) -> int:
    """Return the length of what can be read and is of the same work; 0 for anything else."""
    with path.open("rb") as file:
        if file.readline() != head:
            return 0
        length = len(head)
        for line in file:
            if not _is_entry(line):
                break
            length += len(line)
    return length


def _is_entry(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and "shard" in json.loads(line)
    except ValueError:
        return False


def packed(array: NDArray[Any]) -> str:
    """Return an array's bytes as text."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def unpacked(text: str, dtype: Any) -> NDArray[Any]:
    """Return what `packed` was given, flat."""
    return np.frombuffer(base64.b64decode(text), dtype)
