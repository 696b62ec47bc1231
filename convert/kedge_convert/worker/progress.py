"""Report the progress of the work as events, to a screen or to another process.

Events are small and plain: they cross processes. The screen draws them on stderr: a named bar per
stage, with the time left and the time taken.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kedge_convert.images import ImageSplit, Tick
from kedge_convert.sampling import Sampling
from kedge_runtime import terminal
from kedge_runtime.errors import counted
from kedge_runtime.output import copy_of_stderr, percent, say
from kedge_runtime.printable import message
from kedge_runtime.progress import Bar

PREPARATION = "preparation"


@dataclass(frozen=True)
class PartStarted:
    """The work starts a part: a target, or `PREPARATION`; "" is the part before both."""

    part: str


@dataclass(frozen=True)
class StageStarted:
    """A stage starts; `total` is its number of items, where it is known."""

    stage: str
    total: int | None = None


@dataclass(frozen=True)
class ItemDone:
    """One of the stage's items is done."""


@dataclass(frozen=True)
class StageEnded:
    """The stage has ended; not `complete` when it was broken off."""

    complete: bool = True


@dataclass(frozen=True)
class WarningLine:
    """A line for the user, which even a silent screen shows."""

    line: str


@dataclass(frozen=True)
class NoteLine:
    """A line of information, which a silent screen drops."""

    line: str


Event = PartStarted | StageStarted | ItemDone | StageEnded | WarningLine | NoteLine


@dataclass(frozen=True)
class Position:
    """The current part of the work, "" before the first, and its stage."""

    part: str = ""
    stage: str = ""

    def __str__(self) -> str:
        """Return e.g. `export tflite:int8`."""
        words = (self.stage,) if self.part in self.stage else (self.part, self.stage)
        return ", ".join(filter(None, words)) or "start"

    def after(self, event: Event) -> "Position":
        """Return the position after an event; a stage that broke off stays the current one."""
        match event:
            case PartStarted(part):
                return Position(part)
            case StageStarted(stage):
                return Position(self.part, stage)
            case StageEnded(complete=True):
                return Position(self.part, f"after {self.stage}")
        return self


class Screen:
    """Events on stderr: bars on a terminal, one line a stage in a log."""

    def __init__(self, *, silent: bool = False) -> None:
        """Open a copy of stderr; `silent` or --quiet shows warnings only."""
        self._stream = copy_of_stderr()
        self._silent = silent or terminal.VERBOSITY.quiet
        self._bar: Bar | None = None

    def close(self) -> None:
        """Take the bar away and close the copy of stderr."""
        self._end(complete=False)
        self._stream.close()

    def show(self, event: Event) -> None:
        """Draw one event."""
        match event:
            case WarningLine(line):
                say(line, prefix="", stream=self._stream)
            case NoteLine(line) if not self._silent:
                say(line, prefix="", stream=self._stream)
            case StageStarted(stage, total) if not self._silent:
                self._end(complete=False)
                self._bar = Bar(message(stage), total, self._stream).__enter__()
            case ItemDone() if self._bar:
                self._bar.advance()
            case StageEnded(complete):
                self._end(complete)

    def _end(self, complete: bool) -> None:
        if self._bar is not None:
            self._bar.end(complete=complete)
            self._bar = None


class Progress:
    """Passes events to `show`, by default to a screen of its own on stderr.

    `silent`: that screen shows warnings only. `position`: the current part and stage.
    """

    def __init__(
        self, show: Callable[[Event], None] | None = None, *, silent: bool = False
    ) -> None:
        """Open the screen, unless the events go elsewhere."""
        self._stack = contextlib.ExitStack()
        self._show = show or self._open(Screen(silent=silent)).show
        self.position = Position()

    def _open(self, screen: Screen) -> Screen:
        self._stack.callback(screen.close)
        return screen

    def __enter__(self) -> "Progress":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the screen."""
        self._stack.close()

    def report(self, event: Event) -> None:
        """Pass an event on."""
        self.position = self.position.after(event)
        self._show(event)

    def start_part(self, part: str) -> None:
        """Report which part is next."""
        self.report(PartStarted(part))

    @contextlib.contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Tick]:
        """Show `name` while its block runs; call what is yielded once per item of `total`."""
        self.report(StageStarted(name, total))
        try:
            yield lambda: self.report(ItemDone())
        except BaseException:
            self.report(StageEnded(complete=False))
            raise
        self.report(StageEnded())

    def say(self, line: str) -> None:
        """Show a line, even on a silent screen."""
        self.report(WarningLine(line))

    def note(self, line: str) -> None:
        """Show a line, but not on a silent screen."""
        self.report(NoteLine(line))

    def warn_few(self, photos: ImageSplit, sampling: Sampling) -> None:
        """Warn when the folder holds fewer images than requested; a third is for the check."""
        calibration, check = len(photos.calibration), len(photos.validation)
        if (calibration, check) < (sampling.calibration, sampling.check) or check < sampling.check:
            numbers = f"{sampling.calibration} and {sampling.check}"
            # Nobody asked for the default numbers.
            usual = sampling == Sampling(seed=sampling.seed)
            wanted = f"of the usual {numbers}" if usual else f"({numbers} requested)"
            self.say(
                f"only {counted(calibration, 'calibration image')} and "
                f"{counted(check, 'validation image')} {wanted}: one image is "
                f"{percent(1 / check)} of the agreement"
            )

    def warn_skipped(self, photos: ImageSplit) -> None:
        """Name skipped images, by reason."""
        reasons = {
            "unreadable image": photos.broken,
            "blank image": photos.blank,
            "repeated image": photos.repeated,
        }
        for reason, paths in reasons.items():
            if paths:
                names = ", ".join(path.name for path in paths[:3])
                more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
                self.say(f"skipped {counted(len(paths), reason)}: {names}{more}")
