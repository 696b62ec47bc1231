"""Show a progress bar on stderr, or one line in a log.

The device install has no rich.
"""

import shutil
import sys
from collections.abc import Callable
from time import monotonic
from typing import TextIO

from kedge_runtime.printable import printable

NAME, WIDTH = 29, 24
# Seconds between two updates.
PAUSE = 0.1


class Bar:
    """Shows the progress of a task of `total` items; a context manager.

    On a terminal one line is redrawn; elsewhere the name is printed once.
    """

    def __init__(
        self,
        name: str,
        total: int,
        stream: TextIO | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Start at 0; `stream` is stderr by default."""
        self.name, self.total, self.done = printable(name), total, 0
        self._stream = stream or sys.stderr
        self._clock = clock
        self._live = self._stream.isatty()
        self._began, self._drawn, self._skipped = clock(), float("-inf"), 0

    def __enter__(self) -> "Bar":
        """Show the bar."""
        if self._live:
            self._draw()
        else:
            print(self.name, file=self._stream, flush=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Draw the last state and end the line."""
        if self._live:
            self._draw()
            print(file=self._stream, flush=True)

    def advance(self, count: int = 1) -> None:
        """Add `count` finished items."""
        self.done += count
        if self._live and self._clock() - self._drawn >= PAUSE:
            self._draw()

    def skip(self, count: int) -> None:
        """Add items of an earlier run, which don't count for the rate."""
        self._skipped += count
        self.advance(count)

    def line(self, columns: int = 120) -> str:
        """Return the bar as text, e.g. `int8.tflite ####---- 120/500  31.2/s  0:12 left`.

        At the end it has the elapsed time: `500/500  31.2/s  0:16`. The bar fills the rest of
        `columns`, up to WIDTH.
        """
        figures = self._figures()
        room = max(min(WIDTH, columns - NAME - len(figures) - 2), 0)
        full = room * self.done // max(self.total, 1)
        name = self.name if len(self.name) <= NAME else self.name[: NAME - 1] + "…"
        return f"{name:<{NAME}} {'#' * full:-<{room}} {figures}"[:columns]

    def _figures(self) -> str:
        """Return the count, the rate, and the time left or elapsed."""
        count = f"{self.done}/{self.total}"
        elapsed, fresh = self._clock() - self._began, self.done - self._skipped
        rate = fresh / elapsed if elapsed > 0 else 0.0
        if not rate:
            return count
        if self.done >= self.total:
            return f"{count}  {rate:.1f}/s  {clock_time(round(elapsed))}"
        left = round((self.total - self.done) / rate)
        return f"{count}  {rate:.1f}/s  {clock_time(left)} left"

    def _draw(self) -> None:
        self._drawn = self._clock()
        # After a full line the next return would start a new one.
        line = self.line(shutil.get_terminal_size().columns - 1)
        # \x1b[K clears the rest of a longer line.
        self._stream.write(f"\r{line}\x1b[K")
        self._stream.flush()


def clock_time(seconds: int) -> str:
    """Return `m:ss`, or `h:mm:ss` from an hour on."""
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
