"""Results by what they were made from: entries that name blobs, both checked by digest when read.

```
CACHE/entries/KEY.json    what is known of a result, and its files' SHA-256
CACHE/blobs/SHA256        a file, under the digest of its content
CACHE/locks/KEY           held (flock) by whoever makes the result; the system frees a dead one's
CACHE/work/               folders of unfinished conversions
```
Every file is written beside its place, synced and renamed, so that none is ever half there; an
entry or a blob that doesn't match its digest is taken for missing, and made again.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from kedge_convert.build.keys import digest
from kedge_runtime.errors import UsageError, reason_of
from kedge_runtime.files import write_whole

FOLDERS = ("entries", "blobs", "locks", "work")
# Nothing takes so long: what is older was left by a process that was killed.
LEFT_BEHIND = 2 * 24 * 3600.0  # seconds
NONE: Mapping[str, bytes] = MappingProxyType({})


def default_folder() -> Path:
    """Return the user's own cache (XDG Base Directory Specification, XDG_CACHE_HOME)."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "kedge"


@dataclass(frozen=True)
class Entry:
    """What is known of a result, as plain data, and the SHA-256 of its files by their names."""

    facts: dict[str, Any]
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cache:
    """A folder of results; any number of processes may use it at once."""

    folder: Path

    def open(self) -> None:
        """Make the folders, and sweep what killed processes left. Raises UsageError."""
        try:
            for name in FOLDERS:
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            self._sweep()
        except OSError as error:
            reason = reason_of(error)
            raise UsageError(f"--cache: {self.folder}: {reason}; choose another folder") from None

    def get(self, key: str) -> Entry | None:
        """Return an intact result, or None."""
        try:
            stored = json.loads(self._entry(key).read_bytes())
            if stored["digest"] != digest(stored["entry"]):
                return None
            entry = Entry(**stored["entry"])
            intact = all(map(self._is_intact, entry.files.values()))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return entry if intact else None

    def put(self, key: str, facts: dict[str, Any], files: Mapping[str, bytes] = NONE) -> Entry:
        """Keep a result, its files before the entry that names them."""
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        for name, content in files.items():
            if not self._is_intact(digests[name]):
                write_whole(self.blob(digests[name]), content)
        entry = {"facts": facts, "files": digests}
        stored = json.dumps({"digest": digest(entry), "entry": entry})
        write_whole(self._entry(key), stored.encode())
        # As a later run will read it: tuples have become lists.
        return Entry(**json.loads(stored)["entry"])

    def known(self, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the facts of a result without files, made unless they are there."""
        entry = self.get(key) or self.put(key, make())
        return entry.facts

    def blob(self, sha256: str) -> Path:
        """Return where a file lies."""
        return self.folder / "blobs" / sha256

    @contextmanager
    def lock(self, key: str, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold a key while the block runs; call `waiting` and wait if someone else holds it."""
        with (self.folder / "locks" / key).open("wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def workshop(self) -> Iterator[Path]:
        """Yield a folder for unfinished work; it is removed after the block."""
        with tempfile.TemporaryDirectory(dir=self.folder / "work") as folder:
            yield Path(folder)

    def _entry(self, key: str) -> Path:
        return self.folder / "entries" / f"{key}.json"

    def _is_intact(self, sha256: str) -> bool:
        try:
            return hashlib.sha256(self.blob(sha256).read_bytes()).hexdigest() == sha256
        except OSError:
            return False

    def _sweep(self) -> None:
        hidden = (path for name in FOLDERS for path in (self.folder / name).glob(".kedge-*"))
        oldest = time.time() - LEFT_BEHIND
        for path in [*hidden, *(self.folder / "work").iterdir()]:
            with suppress(FileNotFoundError):  # another build sweeps, too
                if path.stat().st_mtime < oldest:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
