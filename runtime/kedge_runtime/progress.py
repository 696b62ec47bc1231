"""A bar on stderr while a device works: how far, how fast, how long it will take. A line in a log.

The device has no rich; this is all that it needs of it.
"""

import shutil
import sys
from collections.abc import Callable
from time import monotonic
from typing import TextIO

from kedge_runtime.printable import printable

NAME, WIDTH = 29, 24
# Seconds between two drawings.
PAUSE = 0.1


class Bar:
    """A named piece of work of `total` items; a context manager.

    On a terminal it is drawn again and again in one line, elsewhere its name is printed once.
    """

    def __init__(
        self,
        name: str,
        total: int,
        stream: TextIO | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Begin at 0; `stream` is stderr unless it is given."""
        self.name, self.total, self.done = printable(name), total, 0
        self._stream = stream or sys.stderr
        self._clock = clock
        self._live = self._stream.isatty()
        self._began, self._drawn, self._skipped = clock(), float("-inf"), 0

    def __enter__(self) -> "Bar":
        """Show it."""
        if self._live:
            self._draw()
        else:
            print(self.name, file=self._stream, flush=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last state in its line."""
        if self._live:
            self._draw()
            print(file=self._stream, flush=True)

    def advance(self, count: int = 1) -> None:
        """Note that `count` more items are done."""
        self.done += count
        if self._live and self._clock() - self._drawn >= PAUSE:
            self._draw()

    def skip(self, count: int) -> None:
        """Note items that an earlier run did: they say nothing of the rate."""
        self._skipped += count
        self.advance(count)

    def line(self, columns: int = 120) -> str:
        """Return the bar as text, e.g. `int8.tflite ####---- 120/500  31.2/s  0:12 left`.

        At the end it says how long it took: `500/500  31.2/s  0:16`. The bar takes what room is
        left in `columns`, up to WIDTH.
        """
        said = self._figures()
        room = max(min(WIDTH, columns - NAME - len(said) - 2), 0)
        full = room * self.done // max(self.total, 1)
        name = self.name if len(self.name) <= NAME else self.name[: NAME - 1] + "…"
        return f"{name:<{NAME}} {'#' * full:-<{room}} {said}"[:columns]

    def _figures(self) -> str:
        """Return how far it is, how fast, and how long it will take or took."""
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
        # In a full line the next return would begin another one.
        line = self.line(shutil.get_terminal_size().columns - 1)
        # \x1b[K clears what a longer line left behind.
        self._stream.write(f"\r{line}\x1b[K")
        self._stream.flush()


def clock_time(seconds: int) -> str:
    """Return `m:ss`, or `h:mm:ss` from an hour on."""
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
