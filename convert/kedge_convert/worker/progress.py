"""How the work tells what it is at: by events, drawn here or sent to whoever draws them."""

import contextlib
from collections.abc import Callable, Iterator

from kedge_convert.images import ImageSplit, Sampling, Tick
from kedge_convert.worker.events import Begun, Ended, Event, Noted, Position, Said, Ticked, Turned
from kedge_convert.worker.screen import Screen
from kedge_runtime.errors import counted


class Progress:
    """Passes events to `show`, by default to a screen of its own on stderr.

    `silent`: that screen keeps everything but lines for the user to itself. `position`: where the
    work stands.
    """

    def __init__(
        self, show: Callable[[Event], None] | None = None, *, silent: bool = False
    ) -> None:
        """Open the screen, unless the events go elsewhere."""
        self._ended = contextlib.ExitStack()
        self._show = show or self._open(Screen(silent=silent)).show
        self.position = Position()

    def _open(self, screen: Screen) -> Screen:
        self._ended.callback(screen.close)
        return screen

    def __enter__(self) -> "Progress":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the screen."""
        self._ended.close()

    def tell(self, event: Event) -> None:
        """Pass an event on."""
        self.position = self.position.after(event)
        self._show(event)

    def turn(self, part: str) -> None:
        """Tell which part is next."""
        self.tell(Turned(part))

    @contextlib.contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Tick]:
        """Show `name` while its block runs; call what is yielded once per item of `total`."""
        self.tell(Begun(name, total))
        try:
            yield lambda: self.tell(Ticked())
        except BaseException:
            self.tell(Ended(whole=False))
            raise
        self.tell(Ended())

    def say(self, line: str) -> None:
        """Give the user a line, whatever is drawn."""
        self.tell(Said(line))

    def note(self, line: str) -> None:
        """Give whoever watches a line; a silent screen keeps it."""
        self.tell(Noted(line))

    def warn_few(self, images: ImageSplit, sampling: Sampling) -> None:
        """Say when the folder holds fewer images than asked for; a third is for validation."""
        counts = len(images.calibration), len(images.validation)
        if counts < (sampling.calibration, sampling.check) or counts[1] < sampling.check:
            self.say(
                f"only {counted(counts[0], 'calibration image')} and {counts[1]} for validation "
                f"({sampling.calibration} and {sampling.check} were asked for): "
                f"one image is {1 / counts[1]:.1%} of the agreement"
            )

    def warn_skipped(self, images: ImageSplit) -> None:
        """Name images that are not used, by their fault."""
        reasons = {
            "unreadable image": images.broken,
            "blank image": images.blank,
            "repeated image": images.repeated,
        }
        for reason, paths in reasons.items():
            if paths:
                names = ", ".join(path.name for path in paths[:3])
                more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
                self.say(f"skipped {counted(len(paths), reason)}: {names}{more}")
