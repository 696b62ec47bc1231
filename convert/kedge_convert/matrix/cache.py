"""Cache results by their inputs: entries name blobs, and both are verified when they are read.

```
CACHE/entries/KEY.json    the facts of a result, its files' SHA-256, and a proof of both
CACHE/blobs/SHA256        a file, named by the digest of its content
CACHE/locks/KEY           locked (flock) while a build makes the result
CACHE/work/               folders of unfinished conversions
```
Every file is written under a temporary name, synced and renamed, so none is ever incomplete. An
entry or a blob that doesn't match its digest counts as missing and is made again.

A user who can write here can put anything under a key, with digests that match. So the folder
belongs to one user; where it is shared, the proof is an HMAC under the key in KEDGE_CACHE_KEY.
"""

import fcntl
import functools
import hashlib
import hmac
import json
import os
import re
import shlex
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from kedge_convert.matrix.keys import digest
from kedge_runtime.errors import UsageError, one_line, reason_of
from kedge_runtime.files import (
    Access,
    others_access,
    sha256_of_file,
    sweep,
    synced,
    temporary_folder,
    unwritable,
    write_whole,
)
from kedge_runtime.output import say

FOLDERS = ("entries", "blobs", "locks", "work")
KEY = "KEDGE_CACHE_KEY"
SHORTEST = 32  # characters; half of what `openssl rand -hex 32` gives
# The flips, layers and histograms of a drift take kilobytes.
MAX_ENTRY = 64 << 20  # bytes
_CHUNK = 1 << 20
_SHA256 = re.compile("[0-9a-f]{64}")
NONE: Mapping[str, bytes] = MappingProxyType({})


def default_folder() -> Path:
    """Return the user's own cache (XDG Base Directory Specification, XDG_CACHE_HOME)."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "kedge"


@dataclass(frozen=True)
class Entry:
    """Hold the facts of a result, plain data, and the SHA-256 of its files by their names."""

    facts: dict[str, Any]
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cache:
    """Hold a folder of results; any number of processes may use it at once."""

    folder: Path

    def open(self) -> None:
        """Make the folders, and remove the files of killed processes.

        Raises UsageError for a folder that can't be made, or that other users can write to without
        a key.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _secret():
                _check_private(self.folder)
            for name in FOLDERS:
                (self.folder / name).mkdir(exist_ok=True)
                sweep(self.folder / name)
        except OSError as error:
            reason = reason_of(error)
            raise UsageError(f"--cache: {self.folder}: {reason}; choose another folder") from None

    def get(self, key: str) -> Entry | None:
        """Return a valid result, or None; the reason of an invalid one goes to stderr."""
        try:
            return self._valid(key)
        except FileNotFoundError:
            return None
        # JSON of unknown origin can have any other fault.
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            self.doubt(key, one_line(error))
            return None

    def put(self, key: str, facts: dict[str, Any], files: Mapping[str, bytes] = NONE) -> Entry:
        """Store a result, its files before the entry that names them."""
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        for name, content in files.items():
            if not self._is_intact(digests[name]):
                write_whole(self.blob(digests[name]), content)
        entry = {"facts": facts, "files": digests}
        stored = json.dumps({"entry": entry, **_proof(key, entry)})
        write_whole(self._entry(key), stored.encode())
        # As a later run will read it: tuples have become lists.
        return Entry(**json.loads(stored)["entry"])

    def doubt(self, key: str, reason: str) -> None:
        """Say once why a result is invalid."""
        _say_once(f"cache: {self._entry(key)}: {reason}; building it again")

    def blob(self, sha256: str) -> Path:
        """Return the path of a file."""
        return self.folder / "blobs" / sha256

    def content(self, sha256: str) -> bytes:
        """Read a file and verify it. Raises UsageError when it has changed."""
        try:
            content = self.blob(sha256).read_bytes()
        except OSError as error:
            raise self._changed(sha256, reason_of(error)) from None
        if hashlib.sha256(content).hexdigest() != sha256:
            raise self._changed(sha256, "changed since it was checked")
        return content

    def take(self, sha256: str, path: Path) -> None:
        """Copy a file and verify it. Raises UsageError when it has changed."""
        hasher = hashlib.sha256()
        try:
            with self.blob(sha256).open("rb") as file, synced(path) as copy:
                while chunk := file.read(_CHUNK):
                    hasher.update(chunk)
                    copy.write(chunk)
        except OSError as error:
            raise self._changed(sha256, reason_of(error)) from None
        if hasher.hexdigest() != sha256:
            raise self._changed(sha256, "changed since it was checked")

    @contextmanager
    def lock(self, key: str, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Lock a key while the block runs; call `waiting` before waiting for another process."""
        path, flags = self.folder / "locks" / key, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        try:
            descriptor = os.open(path, flags, 0o666)
        except OSError as error:
            raise UsageError(f"--cache: {path}: {unwritable(error)}; remove it") from None
        with os.fdopen(descriptor, "r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def workshop(self) -> AbstractContextManager[Path]:
        """Yield a folder for unfinished work, removed after the block."""
        return temporary_folder(self.folder / "work")

    def _entry(self, key: str) -> Path:
        return self.folder / "entries" / f"{key}.json"

    def _valid(self, key: str) -> Entry:
        """Return an entry with a valid proof and valid files. Raises ValueError, mostly."""
        with self._entry(key).open("rb") as file:
            # Another user may have written it while the folder was open to all.
            if not _secret() and os.fstat(file.fileno()).st_uid != os.geteuid():
                raise ValueError("belongs to another user")
            content = file.read(MAX_ENTRY + 1)
        if len(content) > MAX_ENTRY:
            raise ValueError(f"has more than {MAX_ENTRY} bytes")
        stored = json.loads(content)
        _check_proof(stored, _proof(key, stored["entry"]))
        entry = Entry(**stored["entry"])
        if not isinstance(entry.facts, dict):
            raise TypeError("its facts are not a table")
        if not all(map(self._is_intact, entry.files.values())):
            raise ValueError("one of its files is missing or damaged")
        return entry

    def _is_intact(self, sha256: str) -> bool:
        if not _SHA256.fullmatch(sha256):
            return False  # a path, say
        try:
            return sha256_of_file(self.blob(sha256)) == sha256
        except OSError:
            return False

    def _changed(self, sha256: str, reason: str) -> UsageError:
        return UsageError(f"--cache: {self.blob(sha256)}: {reason}; build again")


def _secret() -> bytes:
    """Return the key of the proofs, or an empty one. Raises UsageError for a short key.

    It is read where it is used and never sent to a worker: each has its own environment.
    """
    key = os.environ.get(KEY, "")
    if 0 < len(key) < SHORTEST:
        raise UsageError(
            f"{KEY}: has {len(key)} characters, at least {SHORTEST} are needed; "
            "`openssl rand -hex 32` makes one"
        )
    return os.fsencode(key)


def _proof(key: str, entry: dict[str, Any]) -> dict[str, str]:
    """Return the proof of an entry and its key, by the kind of the proof."""
    text = digest({"key": key, "entry": entry})
    if secret := _secret():
        return {"hmac": hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()}
    return {"digest": text}


def _check_proof(stored: dict[str, Any], proof: dict[str, str]) -> None:
    """Raise ValueError unless an entry has this proof."""
    ((kind, value),) = proof.items()
    if kind not in stored and kind == "hmac":
        raise ValueError(f"was made without a key, and {KEY} is set")
    if kind not in stored and "hmac" in stored:
        raise ValueError(f"was made with a key, and {KEY} isn't set")
    if not hmac.compare_digest(stored[kind].encode(), value.encode()):
        raise ValueError(
            f"was made with another {KEY}, or changed" if kind == "hmac" else "damaged"
        )


def _check_private(folder: Path) -> None:
    """Make a folder private. Raises UsageError where other users may have changed it."""
    access = others_access(folder.resolve())
    if access is Access.OWN:
        raise UsageError(
            f"--cache: {folder}: belongs to another user; choose a folder of your own, or set {KEY}"
        )
    if access is Access.WRITE:
        mode = stat.S_IMODE(folder.stat().st_mode)
        raise UsageError(
            f"--cache: {folder}: other users can write to it (mode {mode:o}); if you trust its "
            f"content, `chmod 700 {shlex.quote(str(folder))}`; to share it, set {KEY}"
        )
    if access is Access.READ:  # other users could read it, not change it
        folder.chmod(0o700)


@functools.cache
def _say_once(line: str) -> None:
    say(line)
