"""Report the progress of the work as events, to a screen or to another process."""

import contextlib
from collections.abc import Callable, Iterator

from kedge_convert.images import ImageSplit, Sampling, Tick
from kedge_convert.worker.events import (
    Event,
    ItemDone,
    NoteLine,
    PartStarted,
    Position,
    StageEnded,
    StageStarted,
    WarningLine,
)
from kedge_convert.worker.screen import Screen
from kedge_runtime.errors import counted


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
