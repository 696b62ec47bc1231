"""Show a stage's progress on stderr: a bar on a terminal, one line with its seconds in a log.

All commands show the same bar. The device install has no rich, so it is drawn here.
"""

import sys
import threading
from collections.abc import Callable
from time import monotonic
from typing import TextIO

import click

from kedge_runtime import output, terminal
from kedge_runtime.printable import printable

NAME, WIDTH = 32, 16
# Seconds between two updates by items, and by the clock.
PAUSE, TICK = 0.1, 0.5
# What is done and what is left, also without colours; and in ASCII.
SIGNS, PLAIN_SIGNS = "━─", "#-"


class Bar:
    """Shows the progress of a stage of `total` items, or of an unknown number; a context manager.

    On a terminal one line is redrawn, at least twice a second. Elsewhere the name is printed, and
    the seconds behind it when the stage ends. With --quiet it prints nothing.
    """

    def __init__(
        self,
        name: str,
        total: int | None = None,
        stream: TextIO | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Start at 0; `stream` is stderr by default."""
        self.name, self.total, self.done = printable(name), total, 0
        self._stream = stream or sys.stderr
        self._clock = clock
        self._live = terminal.is_terminal(self._stream)
        self._silent = terminal.VERBOSITY.quiet
        self._began = self._ticked = clock()
        self._drawn, self._skipped = float("-inf"), 0
        self._open = False  # the log's line has no end yet
        self._ended, self._lock = threading.Event(), threading.RLock()
        self._signs = _signs(self._stream)

    def __enter__(self) -> "Bar":
        """Show the bar."""
        if self._silent:
            return self
        output.BEFORE_MESSAGE.append(self._step_aside)
        if self._live:
            self._draw()
            threading.Thread(target=self._tick, daemon=True).start()
        else:
            self._write(self.name)
            self._open = True
        return self

    def __exit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        """Draw the last state and end the line."""
        self.end(complete=kind is None)

    def end(self, *, complete: bool = True) -> None:
        """End the line, with the time that the stage took, or after which it was broken off."""
        if self._silent or self._ended.is_set():
            return
        self._ended.set()
        with self._lock:
            output.BEFORE_MESSAGE.remove(self._step_aside)
            if complete and self.total is not None:
                self.done = max(self.done, self.total)
            if self._live:
                self._draw(ended=complete)
                self._write("\n")
            else:
                self._write_end(complete)

    def advance(self, count: int = 1) -> None:
        """Add `count` finished items."""
        self.done += count
        self._ticked = self._clock()
        if self._live and not self._silent and self._ticked - self._drawn >= PAUSE:
            self._draw()

    def skip(self, count: int) -> None:
        """Add items of an earlier run, which don't count for the time left."""
        self._skipped += count
        self.advance(count)

    def line(self, width: int = 79, *, ended: bool = False) -> str:
        """Return the bar as text, e.g. `int8.tflite ━━━━──── 120/500  0:04, 0:12 left`.

        At the end it has the time taken: `500/500  16.2 s`.
        """
        return "".join(self._parts(width, ended=ended))

    def _parts(self, width: int, *, ended: bool) -> tuple[str, str, str]:
        """Return the name, the bar, and the figures."""
        figures = self._figures(ended=ended)
        room = max(min(WIDTH, width - NAME - len(figures) - 2), 0)
        share = ended if self.total is None else self.done / max(self.total, 1)
        full = int(room * share)
        name = self.name if len(self.name) <= NAME else self.name[: NAME - 1] + "…"
        bar = self._signs[0] * full + self._signs[1] * (room - full)
        head = f"{name:<{NAME}} "[:width]
        return head, bar, f" {figures}"[: width - len(head) - room]

    def _figures(self, *, ended: bool) -> str:
        """Return the count, and the time elapsed and left, or taken."""
        count = "" if self.total is None else f"{self.done}/{self.total}"
        elapsed = self._clock() - self._began
        time = f"{elapsed:.1f} s" if ended else clock_time(int(elapsed)) + self._left(elapsed)
        return f"{count:>7}  {time}"

    def _left(self, elapsed: float) -> str:
        """Return e.g. `, 0:12 left`, or nothing.

        Items are unequal. An item that takes longer than the estimate for all the rest omits it.
        """
        fresh = self.done - self._skipped
        if not (self.total and fresh > 0 and self._ticked > self._began):
            return ""
        left = (self.total - self.done) * (self._ticked - self._began) / fresh
        since = self._clock() - self._ticked
        return "" if since > left else f", {clock_time(round(left - since))} left"

    def _draw(self, *, ended: bool = False) -> None:
        with self._lock:
            self._drawn = self._clock()
            # After a full line the next return would start a new one.
            head, bar, figures = self._parts(terminal.columns() - 1, ended=ended)
            if terminal.is_coloured(self._stream):
                bar = click.style(bar, fg="green" if ended else "cyan")
            # \x1b[K clears the rest of a longer line.
            self._write(f"\r{head}{bar}{figures}\x1b[K")

    def _tick(self) -> None:
        while not self._ended.wait(TICK):
            with self._lock:
                if not self._ended.is_set():
                    self._draw()

    def _step_aside(self) -> None:
        """Leave the line to a message; the bar comes again below it."""
        with self._lock:
            if self._live:
                self._write("\r\x1b[K")
            elif self._open:
                self._write("\n")
                self._open = False

    def _write_end(self, complete: bool) -> None:
        head = "" if self._open else self.name
        count = f"  {self.done}/{self.total}" if self.total is not None else ""
        after = "" if complete else "stopped after "
        self._write(f"{head}{count}  {after}{self._clock() - self._began:.1f} s\n")
        self._open = False

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _signs(stream: TextIO) -> str:
    try:
        SIGNS.encode(stream.encoding or "utf-8")
    except (LookupError, UnicodeEncodeError):
        return PLAIN_SIGNS
    return SIGNS


def clock_time(seconds: int) -> str:
    """Return `m:ss`, or `h:mm:ss` from an hour on."""
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
