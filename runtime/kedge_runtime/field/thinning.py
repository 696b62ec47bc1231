"""Choose the frames that count: neighbouring frames of a video show the same and prove nothing new.

A frame counts when the scene has changed since the last one that counted, at most one in `least`
seconds; where nothing changes, one in `most` seconds. What is left may still hang together, as the
frames of one night do: calibrate with images of all hours and seasons in which the camera works.
"""

from dataclasses import dataclass

from kedge_runtime.arrays import Pixels
from kedge_runtime.streams.answers import Motion

# The mean grey difference, 0..255, of two scenes; noise and JPEG alone stay below 2.
SCENE = 6.0


@dataclass(frozen=True)
class Pace:
    """How often frames count, in seconds: at most one in `least`, at least one in `most`."""

    least: float = 5.0
    most: float = 600.0


class Thinning:
    """Decides frame by frame whether it counts."""

    def __init__(self, pace: Pace = Pace()) -> None:
        """Begin without a frame: the first one counts."""
        self._pace = pace
        self._motion = Motion(SCENE)
        self._last: float | None = None

    def __call__(self, pixels: Pixels, time: float) -> bool:
        """Return whether a frame, RGB uint8 [h, w, 3] at a time in seconds, counts."""
        if self._last is None:
            self._motion(pixels)
        elif not self._is_due(pixels, time - self._last):
            return False
        self._last = time
        return True

    def _is_due(self, pixels: Pixels, passed: float) -> bool:
        # A clock that was set back must not stop the test until it has caught up.
        if 0 <= passed < self._pace.least:
            return False
        return self._motion(pixels) or not 0 <= passed < self._pace.most
