"""What a conversion costs, part by part: seconds from its events, memory from the kernel."""

import os
import threading
from time import monotonic
from typing import Any

from kedge_convert.worker.process import held
from kedge_convert.worker.progress import Event, PartStarted

INTERVAL = 0.1  # seconds between two looks at the memory


class Watch:
    """Attributes time and memory to the part that runs; used as a context.

    A part is a target, "preparation", or "" for loading, initialising and asking the original.
    """

    def __init__(self) -> None:
        """Start the clock."""
        self._part, self._since = "", monotonic()
        self._seconds: dict[str, float] = {}
        self._peak: dict[str, int] = {}
        self._over = threading.Event()
        self._looking = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Watch":
        """Start to look at the memory."""
        self._looking.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop looking."""
        self._over.set()
        self._looking.join()

    def show(self, event: Event) -> None:
        """Take an event: what `Progress` calls."""
        if isinstance(event, PartStarted):
            self._turn(event.part)

    def _turn(self, part: str) -> None:
        now = monotonic()
        self._seconds[self._part] = self._seconds.get(self._part, 0.0) + now - self._since
        self._part, self._since = part, now

    def _look(self) -> None:
        while not self._over.wait(INTERVAL):
            part, taken = self._part, held(os.getpid())
            self._peak[part] = max(self._peak.get(part, 0), taken)

    def parts(self) -> dict[str, dict[str, Any]]:
        """Return seconds and peak memory of every part; memory as `--memory-limit` counts it."""
        self._turn(self._part)
        return {
            part: {"seconds": round(seconds, 1), "peak_gb": round(self._peak.get(part, 0) / 1e9, 2)}
            for part, seconds in self._seconds.items()
        }
