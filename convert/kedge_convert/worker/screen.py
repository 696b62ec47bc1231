"""Draw the progress on stderr: a named bar per stage, with the time left and the time taken."""

from rich import progress as rich_progress
from rich.console import Console
from rich.text import Text

from kedge_convert.worker.events import (
    Event,
    ItemDone,
    NoteLine,
    StageEnded,
    StageStarted,
    WarningLine,
)
from kedge_runtime.output import copy_of_stderr, message
from kedge_runtime.progress import clock_time


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
