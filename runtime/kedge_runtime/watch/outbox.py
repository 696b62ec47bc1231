"""Keep messages on disk until a network has taken them: bounded, in order, across restarts.

SQLite's write-ahead log survives the kill of the process at any moment. A power cut may take what
the system had not written yet, half a minute on Linux. Where the disk is full, new messages wait in
memory.
"""

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from kedge_runtime.errors import UsageError, one_line
from kedge_runtime.output import say

LIMIT = 10_000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS posting (
    number INTEGER PRIMARY KEY, topic TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS dropped (count INTEGER NOT NULL, first REAL NOT NULL, last REAL NOT NULL)
"""
_DAMAGED = ("malformed", "not a database", "file is encrypted")
_NO_ROOM = ("is full", "disk I/O error")
_LOG_PAGES = 64  # of the write-ahead log, 256 kB: the file stays small


@dataclass(frozen=True)
class Posting:
    """One message on its way. `number` counts all messages of the outbox."""

    number: int
    topic: str
    body: str


@dataclass(frozen=True)
class Dropped:
    """Messages that were dropped because the outbox was full; times in seconds since 1970."""

    count: int
    first: float
    last: float


class Outbox:
    """Holds at most `limit` postings; the oldest make room. Threads may share it."""

    def __init__(self, path: Path, limit: int = LIMIT) -> None:
        """Open the file, or create it with its folder; a damaged one is set aside.

        Raises UsageError when that fails, or when another process has it.
        """
        self.path, self._limit = path, limit
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._base = _opened(path)
        except (OSError, sqlite3.Error) as error:
            raise UsageError(
                f"{path}: can't keep messages there ({one_line(error)}); end the other kedge that "
                "uses it, or choose another folder with --state"
            ) from None
        (largest,) = self._base.execute("SELECT max(number) FROM posting").fetchone()
        self._last = largest or 0
        # What the disk had no room for: new postings, and numbers to remove.
        self._late, self._gone = deque[Posting](), set[int]()
        self._full = False
        self._late_dropped: Dropped | None = None

    def add(self, topic: str, body: str) -> None:
        """Add a posting; it is on disk when this returns, unless the disk is full."""
        with self._lock:
            self._last += 1
            self._late.append(Posting(self._last, topic, body))
            self._flush()

    def after(self, number: int, most: int) -> list[Posting]:
        """Return the first postings with a larger number, at most `most`."""
        with self._lock:
            rows = self._base.execute(
                "SELECT number, topic, body FROM posting WHERE number > ? ORDER BY number",
                (number,),
            )
            # A full disk keeps rows that are gone, any number of them, before those that wait.
            waiting = (Posting(*row) for row in rows if row[0] not in self._gone)
            late = (posting for posting in self._late if posting.number > number)
            return list(islice(chain(waiting, late), most))

    def remove(self, numbers: set[int]) -> None:
        """Remove postings that the network has taken."""
        with self._lock:
            late = {each.number for each in self._late}
            self._gone |= numbers - late
            self._late = deque(each for each in self._late if each.number not in numbers)
            self._flush()

    def __len__(self) -> int:
        """Return the number of postings that wait."""
        with self._lock:
            return self._count()

    def dropped(self) -> Dropped | None:
        """Return what was dropped since the last `forget`; None for nothing.

        None also while there is no room for a message about it, which would drop one more.
        """
        with self._lock:
            if self._count() >= self._limit:
                return None
            return _both(self._saved_dropped(), self._late_dropped)

    def _saved_dropped(self) -> Dropped | None:
        row = self._base.execute("SELECT sum(count), min(first), max(last) FROM dropped")
        count, first, last = row.fetchone()
        return Dropped(count, first, last) if count else None

    def forget(self, dropped: Dropped) -> None:
        """Forget what was dropped up to its last: it was told."""
        with self._lock:
            self._late_dropped = None
            with self._writing():
                self._base.execute("DELETE FROM dropped WHERE last <= ?", (dropped.last,))

    def _count(self) -> int:
        (count,) = self._base.execute("SELECT count(*) FROM posting").fetchone()
        return int(count) - len(self._gone) + len(self._late)

    def close(self) -> None:
        """Close the file; what didn't fit on the disk is lost, and said."""
        with self._lock:
            self._flush()
            self._base.close()
            if self._late:
                say(f"{self.path}: no room on the disk: {len(self._late)} messages lost")

    def _flush(self) -> None:
        """Write what waits in memory. On a full disk it stays there, within the limit."""
        with self._writing():
            rows = [(each.number, each.topic, each.body) for each in self._late]
            self._base.executemany("INSERT INTO posting VALUES (?, ?, ?)", rows)
            self._base.executemany(
                "DELETE FROM posting WHERE number = ?", [(number,) for number in self._gone]
            )
            self._drop_oldest()
            self._base.commit()
            self._late.clear()
            self._gone.clear()
        while len(self._late) > self._limit:
            self._late.popleft()
            now = time.time()
            self._late_dropped = _both(self._late_dropped, Dropped(1, now, now))

    def _drop_oldest(self) -> None:
        cut = self._base.execute(
            "DELETE FROM posting WHERE number <= "
            "(SELECT number FROM posting ORDER BY number DESC LIMIT 1 OFFSET ?)",
            (self._limit,),
        )
        if cut.rowcount > 0:
            now = time.time()
            self._base.execute("INSERT INTO dropped VALUES (?, ?, ?)", (cut.rowcount, now, now))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Run a transaction; where the disk is full, undo it and say so once."""
        try:
            yield
            self._base.commit()
        except sqlite3.OperationalError as error:
            self._base.rollback()
            if not self._full:
                say(f"{self.path}: {one_line(error)}; messages wait in memory")
            self._full = True
            self._renew_if_taken()
        else:
            self._full = False

    def _renew_if_taken(self) -> None:
        """Begin a new file when the network has taken all that is in the full one.

        SQLite needs room to remove rows, too: a file that has filled its disk by itself would stay.
        """
        (rows,) = self._base.execute("SELECT count(*) FROM posting").fetchone()
        if not rows or rows > len(self._gone):
            return
        self._late_dropped = _both(self._saved_dropped(), self._late_dropped)
        self._base.close()
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        self._base = _opened(self.path)
        self._gone.clear()


def _both(one: Dropped | None, other: Dropped | None) -> Dropped | None:
    if one is None or other is None:
        return one or other
    first, last = min(one.first, other.first), max(one.last, other.last)
    return Dropped(one.count + other.count, first, last)


def _opened(path: Path) -> sqlite3.Connection:
    try:
        return _connected(path)
    except sqlite3.DatabaseError as error:
        if any(word in str(error) for word in _NO_ROOM):
            say(f"{path}: {one_line(error)}; until the next start messages wait in memory alone")
            return _connected(":memory:")
        if not any(word in str(error) for word in _DAMAGED):
            raise
        aside = path.with_name(f"{path.name}.damaged")
        path.replace(aside)
        say(f"{path}: damaged ({one_line(error)}); set aside as {aside.name}, a new one began")
        return _connected(path)


def _connected(path: Path | str) -> sqlite3.Connection:
    base = sqlite3.connect(path, timeout=1, check_same_thread=False)
    try:
        base.execute("PRAGMA locking_mode = EXCLUSIVE")
        base.execute("PRAGMA journal_mode = WAL")
        base.execute("PRAGMA synchronous = NORMAL")
        base.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
        base.execute(f"PRAGMA journal_size_limit = {_LOG_PAGES * 4096}")
        base.executescript(_SCHEMA)
        base.execute("SELECT count(*) FROM posting").fetchone()  # takes the lock for good
    except BaseException:
        base.close()
        raise
    return base
