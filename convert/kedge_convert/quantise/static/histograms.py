"""How a tensor's values are spread over the calibration pictures, in one pass and little memory."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

HALF = 4096  # bins on either side of zero: 16 to a step where a tensor uses one side only
LARGEST_SAMPLE = 50_000  # values of a tensor and picture that are counted; ranges see them all

Counts = NDArray[np.int64]
Edges = NDArray[np.float64]


@dataclass
class Histogram:
    """Counts in bins of equal width over [-limit, limit), and the least and greatest value.

    The limit is a power of two and doubles, two bins becoming one, when a value lies beyond it.
    """

    counts: Counts = field(default_factory=lambda: np.zeros(2 * HALF, np.int64))
    limit: float = 2.0**-20
    low: float = math.inf
    high: float = -math.inf

    def add(self, values: NDArray[np.float32]) -> None:
        """Count values of any shape, every n-th of a large tensor."""
        flat = values.reshape(-1)
        self.low, self.high = min(self.low, float(flat.min())), max(self.high, float(flat.max()))
        peak = max(-self.low, self.high)
        while peak >= self.limit:
            self._grow_to(2 * self.limit)
        sample = flat[:: max(1, flat.size // LARGEST_SAMPLE)]
        bins = np.floor(sample * (HALF / self.limit)).astype(np.int64) + HALF
        self.counts += np.bincount(bins.clip(0, 2 * HALF - 1), minlength=2 * HALF)

    def plus(self, other: "Histogram") -> "Histogram":
        """Return the histogram of both's values."""
        sums = Histogram(self.counts.copy(), self.limit, self.low, self.high)
        theirs = Histogram(other.counts.copy(), other.limit)
        for one in (sums, theirs):
            one._grow_to(max(self.limit, other.limit))
        sums.counts += theirs.counts
        sums.low, sums.high = min(self.low, other.low), max(self.high, other.high)
        return sums

    @property
    def centres(self) -> Edges:
        """The bins' middles, [bins]."""
        width = self.limit / HALF
        return np.asarray((np.arange(-HALF, HALF) + 0.5) * width, np.float64)

    def _grow_to(self, limit: float) -> None:
        while self.limit < limit:
            halved = self.counts.reshape(HALF, 2).sum(axis=1)
            self.counts = np.zeros_like(self.counts)
            self.counts[HALF // 2 : HALF + HALF // 2] = halved
            self.limit *= 2
