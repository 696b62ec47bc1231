"""Choose the range of a tensor's 256 steps from its histogram over the calibration images."""

import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kedge_convert.export.exported import PLAIN, Range, Ranges, Scheme
from kedge_convert.prepare.preparation import Grids
from kedge_convert.source import Source
from kedge_runtime.arrays import Doubles

HALF = 4096  # bins on either side of zero: 16 to a step where a tensor uses one side only
LARGEST_SAMPLE = 16_384  # values of a tensor and image that are counted; ranges see them all

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
        sample = flat[:: _stride(values)]
        bins = np.floor(sample * np.float32(HALF / self.limit)).astype(np.int64) + HALF
        self.counts += np.bincount(bins, minlength=2 * HALF)

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


def _stride(values: NDArray[np.float32]) -> int:
    """Return which values to count: every n-th, where n meets all channels (the last axis)."""
    stride = max(1, values.size // LARGEST_SAMPLE)
    while math.gcd(stride, values.shape[-1] if values.ndim else 1) > 1:
        stride += 1
    return stride


STEPS = 255
SHRINKS = np.linspace(1.0, 0.3, 71)  # of the larger side of the full range


def minmax(histogram: Histogram) -> Range:
    """Return the range of all values."""
    return Range.over(histogram.low, histogram.high)


def percentile(histogram: Histogram, share: float) -> Range:
    """Return the range that leaves out half of 1 - `share` of the values on either side."""
    totals = np.cumsum(histogram.counts) / histogram.counts.sum()
    outside = (1 - share) / 2
    first = int(np.searchsorted(totals, outside, side="right"))
    last = int(np.searchsorted(totals, 1 - outside, side="left"))
    return _within(histogram, histogram.centres[first], histogram.centres[last])


def mse(histogram: Histogram) -> Range:
    """Return the range with the least mean squared error: the steps' rounding and what is cut."""
    peak = max(-histogram.low, histogram.high)
    tried = [_within(histogram, -peak * shrink, peak * shrink) for shrink in SHRINKS]
    return tried[int(_squared_errors(histogram, tried).argmin())]


METHODS: dict[str, Callable[[Histogram], Range]] = {
    "minmax": minmax,
    "percentile 99.99": partial(percentile, share=0.9999),
    "mse": mse,
}


# Each tensor's by what the answers lose (answers.py).
BY_ANSWERS = "by answers"
RANGE_METHODS = (*METHODS, BY_ANSWERS)


@dataclass(frozen=True)
class Observed:
    """Every activation's histogram by name, over the calibration images.

    `answers`: the ranges by BY_ANSWERS, of some activations.
    """

    histograms: Mapping[str, Histogram]
    answers: Ranges = field(default_factory=dict)
    _ranges: dict[str, Ranges] = field(default_factory=dict, repr=False, compare=False)

    def named(self, tensors: Mapping[str, str]) -> "Observed":
        """Return the same histograms under other names; `tensors`: the present name of each."""
        histograms = {name: self.histograms[tensor] for name, tensor in tensors.items()}
        known = {name: tensor for name, tensor in tensors.items() if tensor in self.answers}
        return Observed(histograms, {name: self.answers[tensor] for name, tensor in known.items()})

    def __or__(self, other: "Observed") -> "Observed":
        """Return the histograms of both."""
        histograms = {**self.histograms, **other.histograms}
        return Observed(histograms, {**self.answers, **other.answers})

    def ranges(self, method: str) -> Ranges:
        """Return every range by one of METHODS."""
        if method not in self._ranges:
            choose_one = METHODS[method]
            self._ranges[method] = {name: choose_one(one) for name, one in self.histograms.items()}
        return self._ranges[method]


def choose(method: str, observed: Observed) -> Ranges:
    """Return every tensor's range by one of RANGE_METHODS."""
    if method == BY_ANSWERS:
        return observed.ranges("minmax") | observed.answers
    return observed.ranges(method)


def _within(histogram: Histogram, low: float, high: float) -> Range:
    return Range.over(max(low, histogram.low), min(high, histogram.high))


def _squared_errors(histogram: Histogram, ranges: Sequence[Range]) -> Doubles:
    """Return each range's error by sums over all bins before it, which all ranges share."""
    values, counts = histogram.centres, histogram.counts.astype(np.float64)
    sums = [np.append(0.0, np.cumsum(counts * values**power)) for power in (0, 1, 2)]
    lows, highs = (np.array([getattr(one, end) for one in ranges]) for end in ("low", "high"))
    first, last = np.searchsorted(values, lows, "left"), np.searchsorted(values, highs, "right")
    below = [one[first] for one in sums]
    above = [one[-1] - one[last] for one in sums]
    cut = _squares(below, lows) + _squares(above, highs)
    # A zero is held exactly: it takes part in no rounding.
    zeros = np.where((first <= HALF) & (last > HALF), counts[HALF], 0.0)
    inside = sums[0][last] - sums[0][first] - zeros
    return np.asarray(cut + inside * np.square((highs - lows) / STEPS) / 12)


def _squares(sums: Sequence[Doubles], point: Doubles) -> Doubles:
    """Return the sum of (value - point)^2 from the sums of 1, value and value^2."""
    return np.asarray(sums[2] - 2 * point * sums[1] + point**2 * sums[0])


See = Callable[[str, NDArray[np.float32]], None]


@dataclass(frozen=True)
class StaticOperator:
    """One operator of a float file, with the names of its input and output activations."""

    name: str
    tensors: frozenset[str]


class Static(Protocol):
    """The verbs of a format's module."""

    def floats(self, source: Source) -> bytes:
        """Return the float file that is quantised. Raises ConversionError."""

    def tensors(self, source: Source, content: bytes) -> dict[str, str]:
        """Return the tensors of the float TFLite program by the activations that are the same."""

    def observe(
        self,
        content: bytes,
        images: Iterable[NDArray[np.float32]],
        see: See,
        known: Container[str] = (),
    ) -> None:
        """Call `see` with name and value of every activation that isn't known, image by image.

        An image is [1, h, w, 3].
        """

    def quantise(
        self,
        content: bytes,
        ranges: Ranges,
        float_operators: frozenset[str] = frozenset(),
        scheme: Scheme = PLAIN,
    ) -> bytes:
        """Return the int8 file, `float_operators` left in float. Raises ConversionError."""

    def grids(self, scheme: Scheme) -> Grids:
        """Return the grids on which `quantise` keeps prepared weights as they are."""

    def operators(self, content: bytes) -> list[StaticOperator]:
        """Return a float file's operators in execution order."""
