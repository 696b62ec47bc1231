"""Whether a frame shows anything new: far cheaper than asking the model."""

import cv2
import numpy as np
from numpy.typing import NDArray

from kedge_runtime.errors import UsageError
from kedge_runtime.image import Pixels

# Pixels of a side: small enough to blur a sensor's noise away, large enough for a hand.
SIDE = 32
# Pixels that the shorter side is thinned to, about, before it is averaged: 16 for each pixel of the
# thumbnail are enough, and averaging all of a large frame would cost more than the model.
THINNED = 128


class Motion:
    """Compares each frame with the last one that moved."""

    def __init__(self, threshold: float) -> None:
        """Take the mean grey difference that counts as motion, 0..255. Raises UsageError."""
        if not 0 <= threshold <= 255:
            raise UsageError(f"motion is {threshold}, allowed are 0 (any change) to 255")
        self._threshold = threshold
        self._last: NDArray[np.int16] | None = None

    def __call__(self, pixels: Pixels) -> bool:
        """Return whether RGB uint8 [h, w, 3] differ by more than the threshold; the first does."""
        thumbnail = _thumbnail(pixels)
        if self._last is not None and _difference(self._last, thumbnail) <= self._threshold:
            return False
        self._last = thumbnail
        return True


def _thumbnail(pixels: Pixels) -> NDArray[np.int16]:
    step = max(1, min(pixels.shape[:2]) // THINNED)
    thinned = np.ascontiguousarray(pixels[::step, ::step])
    grey = cv2.cvtColor(thinned, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.int16)


def _difference(one: NDArray[np.int16], other: NDArray[np.int16]) -> float:
    return float(np.abs(one - other).mean())
