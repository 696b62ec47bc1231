"""Append messages to a CSV file: a row for each, written at once."""

import csv
import io
import os
import time
from datetime import datetime, timezone
from pathlib import Path

from kedge_runtime.errors import UsageError, counted, reason_of
from kedge_runtime.output import say
from kedge_runtime.streams.events import Event
from kedge_runtime.watch.loop import Message

HEAD = ("time", "event", "frame", "label", "unknown", "id", "probability", "margin", "text")


class CsvFile:
    """Appends to the file of a name in which strftime fills in the date, as `%Y-%m-%d.csv`.

    Where the disk is full, rows are lost and counted; the stream goes on.
    """

    def __init__(self, name: str, *, live: bool = True) -> None:
        """Open the file; `live`: times are seconds since 1970. Raises UsageError."""
        self._name, self._live = name, live
        self._path: Path | None = None
        self._descriptor = -1
        self._lost = 0
        try:
            self._open()
        except OSError as error:
            raise UsageError(
                f"--csv: {name}: can't be written ({reason_of(error)}); choose another place"
            ) from None

    def put(self, message: Message) -> None:
        """Append a row; where that fails, count it."""
        try:
            self._open()
            self._write(_text(self._row(message)))
        except OSError as error:
            if not self._lost:
                say(f"{self._path}: {reason_of(error)}; rows are lost until there is room")
            self._lost += 1
        else:
            self._report()

    def close(self) -> None:
        """Close the file, and report lost rows."""
        self._report()
        os.close(self._descriptor)

    def _report(self) -> None:
        if self._lost:
            say(f"{self._path}: {counted(self._lost, 'row')} lost")
            self._lost = 0

    def _row(self, message: Message) -> list[object]:
        if isinstance(message, Event):
            blank = [""] * (len(HEAD) - 3)
            return [self._moment(message.time), message.kind, *blank, message.text]
        result, frame = message.result, message.frame
        numbers = [f"{number:.6f}" for number in (result.best.probability, result.margin)]
        unknown = "true" if result.unknown else "false"
        answer = [frame.index, result.best.name, unknown, result.best.id, *numbers]
        return [self._moment(frame.seconds), "", *answer, ""]

    def _moment(self, seconds: float) -> str:
        if not self._live:
            return f"{seconds:.3f}"
        return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")

    def _open(self) -> None:
        """Open the file of today. Raises OSError, and UsageError for a file of another kind."""
        path = Path(time.strftime(self._name))
        if path == self._path:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o666)
        try:
            _mend(descriptor, path)
        except BaseException:
            os.close(descriptor)
            raise
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._path = descriptor, path

    def _write(self, row: bytes) -> None:
        size = os.fstat(self._descriptor).st_size
        try:
            if os.write(self._descriptor, row) < len(row):
                raise OSError(28, os.strerror(28))  # ENOSPC: some of the row had room
        except OSError:
            os.ftruncate(self._descriptor, size)
            raise


def _text(row: object) -> bytes:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerow(row)  # type: ignore[arg-type]
    return file.getvalue().encode("utf-8", "surrogateescape")


def _mend(descriptor: int, path: Path) -> None:
    """Give a new file its head, and cut half a row that a killed process left."""
    head, size = _text(HEAD), os.fstat(descriptor).st_size
    if size and not head.startswith(os.pread(descriptor, len(head), 0)[: min(size, len(head))]):
        raise UsageError(f"--csv: {path}: has other columns than kedge writes; choose another name")
    if size < len(head):
        os.ftruncate(descriptor, 0)
        os.write(descriptor, head)
        return
    tail = os.pread(descriptor, 1 << 16, max(size - (1 << 16), 0))
    os.ftruncate(descriptor, size - len(tail) + tail.rfind(b"\n") + 1)
