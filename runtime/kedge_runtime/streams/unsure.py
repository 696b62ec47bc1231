"""A folder for the frames that a model isn't sure of: the ones worth labelling."""

import time
from datetime import datetime, timezone
from itertools import count
from pathlib import Path

import cv2

from kedge_runtime.errors import UsageError, reason_of
from kedge_runtime.files import write_whole
from kedge_runtime.streams.frames import Clock, Frame

QUALITY = 95  # of JPEG, 0..100
# About 200 MB of 640x480 pixels at this quality: an SD card doesn't fill over a night.
LIMIT = 1000


class UnsureFolder:
    """Saves frames as JPEG until the folder holds `limit` of them, those of earlier runs too."""

    def __init__(self, folder: str | Path, limit: int = LIMIT, clock: Clock = time.time) -> None:
        """Make the folder if need be. Raises UsageError when it can't be."""
        self._folder, self._clock = Path(folder), clock
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._room = limit - sum(1 for _ in self._folder.glob("*.jpg"))
        except OSError as error:
            reason = reason_of(error)
            raise UsageError(
                f"{folder}: can't be a folder ({reason}); choose another place"
            ) from None

    def save(self, frame: Frame) -> bool:
        """Save a frame, named by the UTC time and its index; return False when the folder is full.

        Raises UsageError when the disk refuses it.
        """
        if self._room <= 0:
            return False
        pixels = cv2.cvtColor(frame.pixels, cv2.COLOR_RGB2BGR)
        _, content = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        write_whole(self._free(frame.index), content.tobytes())
        self._room -= 1
        return True

    def _free(self, index: int) -> Path:
        moment = datetime.fromtimestamp(self._clock(), timezone.utc)
        name = f"{moment:%Y%m%dT%H%M%S}.{moment.microsecond:06}Z-{index}"
        # A clock may stand still or go back: a Raspberry Pi has no battery for it.
        names = (f"{name}{f'-{again}' if again else ''}.jpg" for again in count())
        return next(path for path in map(self._folder.joinpath, names) if not path.exists())
