"""Report the progress of the work as events, to a screen or to another process.

Events are small and plain: they cross processes. The screen draws them on stderr: a named bar per
stage, with the time left and the time taken.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich import progress as rich_progress
from rich.console import Console
from rich.text import Text

from kedge_convert.images import ImageSplit, Sampling, Tick
from kedge_runtime.errors import counted
from kedge_runtime.output import copy_of_stderr
from kedge_runtime.printable import message
from kedge_runtime.progress import clock_time

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
        """Open a copy of stderr; `silent` shows warnings only."""
        self._console = Console(file=copy_of_stderr(), highlight=False, markup=False, emoji=False)
        self._silent = silent
        self._bar: rich_progress.Progress | None = None

    def close(self) -> None:
        """Take the bar away and close the copy of stderr."""
        self._end(complete=False)
        self._console.file.close()

    def show(self, event: Event) -> None:
        """Draw one event."""
        match event:
            case WarningLine(line):
                self._console.print(message(line), soft_wrap=True)
            case NoteLine(line) if not self._silent:
                self._console.print(message(line), soft_wrap=True)
            case StageStarted(stage, total) if not self._silent:
                self._start(stage, total)
            case ItemDone() if self._bar:
                tick(self._bar, self._bar.task_ids[0])
            case StageEnded(complete):
                self._end(complete)

    def _start(self, stage: str, total: int | None) -> None:
        self._end(complete=False)
        stage = message(stage)
        if not self._console.is_terminal:
            self._console.print(stage)
            return
        self._bar = _bar(self._console)
        self._bar.add_task(stage, total=total, counted=total is not None)
        self._bar.start()

    def _end(self, complete: bool) -> None:
        if self._bar is None:
            return
        if complete:
            total = self._bar.tasks[0].total or 1
            self._bar.update(self._bar.task_ids[0], total=total, completed=total)
        self._bar.stop()
        self._bar = None


def tick(bar: rich_progress.Progress, task: rich_progress.TaskID) -> None:
    """Advance a stage's bar by one item, and keep the time."""
    bar.update(task, advance=1, ticked=bar.get_time())


def _bar(console: Console) -> rich_progress.Progress:
    """Return a bar whose line fits 80 columns."""
    return rich_progress.Progress(
        rich_progress.TextColumn("{task.description:<29}"),
        rich_progress.BarColumn(bar_width=16),
        CountColumn(),
        TimeColumn(),
        console=console,
    )


class CountColumn(rich_progress.ProgressColumn):
    """The number of items done, of a stage that counts them."""

    def render(self, task: rich_progress.Task) -> Text:
        """Return e.g. `25/34`."""
        count = f"{task.completed:.0f}/{task.total:.0f}" if task.fields["counted"] else ""
        return Text(f"{count:>7}", style="progress.download")


class TimeColumn(rich_progress.ProgressColumn):
    """The time a stage has run and has left or, when it is done, the time it took.

    Items are unequal. Where one takes longer than the estimate for all the rest, the column omits
    the time left, instead of repeating the same second.
    """

    def render(self, task: rich_progress.Task) -> Text:
        """Return e.g. `0:15, 0:05 left`, or `21.3 s` at the end."""
        elapsed, left = task.elapsed or 0.0, task.time_remaining
        since = task.get_time() - task.fields.get("ticked", task.get_time())
        if task.finished:
            return Text(f"{elapsed:.1f} s", style="progress.elapsed")
        rest = "" if left is None or since > left else f", {clock_time(round(left))} left"
        return Text(f"{clock_time(int(elapsed))}{rest}", style="progress.remaining")


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
            self.say(
                f"only {counted(calibration, 'calibration image')} and "
                f"{counted(check, 'validation image')} ({sampling.calibration} and "
                f"{sampling.check} requested): one image is {1 / check:.1%} of the agreement"
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
