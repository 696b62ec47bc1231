"""What the user sees while waiting: a named bar per stage, with the time left where it is known."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich import progress as rich_progress
from rich.console import Console

from kedge_convert.photos import Photos, Sampling, Tick
from kedge_convert.toolkit import speaker


class Progress:
    """Stages on stderr: bars on a terminal, one line each in a log."""

    def __init__(self, *, silent: bool = False) -> None:
        """Open the console; `silent` keeps everything but warnings to itself."""
        self.console = Console(file=speaker(), highlight=False)
        self._silent = silent

    def __enter__(self) -> "Progress":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the copy of stderr."""
        self.console.file.close()

    @contextlib.contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Tick]:
        """Show `name` while its block runs; call what is yielded once per item of `total`."""
        if self._silent or not self.console.is_terminal:
            if not self._silent:
                self.console.print(name)
            yield lambda: None
            return
        with _bar(self.console) as bar:
            task = bar.add_task(name, total=total)
            yield lambda: bar.advance(task)
            bar.update(task, total=total or 1, completed=total or 1)

    def warn_few(self, photos: Photos, sampling: Sampling) -> None:
        """Say when the folder holds fewer pictures than asked for; a third is for the check."""
        found = len(photos.calibration), len(photos.check)
        if found < (sampling.calibration, sampling.check) or found[1] < sampling.check:
            self.console.print(
                f"only {found[0]} pictures to calibrate with and {found[1]} to check with "
                f"({sampling.calibration} and {sampling.check} were asked for): "
                f"one picture is {1 / found[1]:.1%} of the agreement",
                soft_wrap=True,
            )

    def warn_broken(self, paths: Sequence[Path]) -> None:
        """Name pictures that were passed over."""
        if paths:
            names = ", ".join(path.name for path in paths[:3])
            more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
            self.console.print(f"passed over {len(paths)} unreadable pictures: {names}{more}")


def _bar(console: Console) -> rich_progress.Progress:
    return rich_progress.Progress(
        rich_progress.TextColumn("{task.description:<29}"),
        rich_progress.BarColumn(bar_width=24),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeElapsedColumn(),
        rich_progress.TextColumn("left"),
        rich_progress.TimeRemainingColumn(),
        console=console,
    )
