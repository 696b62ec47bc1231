"""Choose the range of a tensor's 256 steps from its histogram over the calibration images."""

import math
from collections.abc import Callable, Iterable, Mapping
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
LARGEST_SAMPLE = 50_000  # values of a tensor and image that are counted; ranges see them all

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
    return _best(histogram, _squared_error)


def entropy(histogram: Histogram) -> Range:
    """Return the range whose steps lose the least information, by KL divergence.

    Migacz 2017, "8-bit inference with TensorRT": values that are cut off count in the last bin. A
    step's mass is spread evenly over those of its bins that hold any.
    """
    return _best(histogram, _lost_information)


METHODS: dict[str, Callable[[Histogram], Range]] = {
    "minmax": minmax,
    "percentile 99.99": partial(percentile, share=0.9999),
    "percentile 99.9": partial(percentile, share=0.999),
    "mse": mse,
    "entropy": entropy,
}


# Each tensor by the method that loses least of it on images that set no range.
BY_TENSOR = "by tensor"
RANGE_METHODS = (*METHODS, BY_TENSOR)


@dataclass(frozen=True)
class Observed:
    """Every activation's histogram by name, over the `preparation` and `selection` images."""

    preparation: Mapping[str, Histogram]
    selection: Mapping[str, Histogram]

    def whole(self, name: str) -> Histogram:
        """Return an activation's histogram over all calibration images."""
        return self.preparation[name].plus(self.selection[name])


def choose(method: str, observed: Observed) -> Ranges:
    """Return every tensor's range by one of RANGE_METHODS."""
    return {
        name: METHODS[best(name, observed) if method == BY_TENSOR else method](observed.whole(name))
        for name in observed.preparation
    }


def best(name: str, observed: Observed) -> str:
    """Return the method whose range of the preparation images costs least on the selection images.

    Cost: mean squared error, clipping included. Of equals the first of METHODS.
    """
    prepared, selecting = observed.preparation[name], observed.selection[name]
    return min(METHODS, key=lambda method: _squared_error(selecting, METHODS[method](prepared)))


def _within(histogram: Histogram, low: float, high: float) -> Range:
    return Range.over(max(low, histogram.low), min(high, histogram.high))


def _best(histogram: Histogram, price: Callable[[Histogram, Range], float]) -> Range:
    peak = max(-histogram.low, histogram.high)
    tried = [_within(histogram, -peak * shrink, peak * shrink) for shrink in SHRINKS]
    return min(tried, key=lambda one: price(histogram, one))


def _squared_error(histogram: Histogram, one: Range) -> float:
    values, step = histogram.centres, (one.high - one.low) / STEPS
    cut = values - values.clip(one.low, one.high)
    # A zero is held exactly: it takes part in no rounding.
    rounding = np.where((cut == 0) & ~_at_zero(), step**2 / 12, 0.0)
    return float(histogram.counts @ (np.square(cut) + rounding))


def _at_zero() -> NDArray[np.bool_]:
    return np.asarray(np.arange(2 * HALF) == HALF)


def _lost_information(histogram: Histogram, one: Range) -> float:
    values = histogram.centres
    inside = (values >= one.low) & (values <= one.high)
    if inside.sum() <= STEPS:
        return float("inf")
    # A zero is held exactly. Spread with its step it would call for ever narrower ranges.
    counts = np.where(_at_zero(), 0.0, histogram.counts)
    held = counts[inside]
    held[0] += counts[values < one.low].sum()
    held[-1] += counts[values > one.high].sum()
    steps = np.rint((values[inside] - one.low) * (STEPS / (one.high - one.low))).astype(np.intp)
    return _divergence(held / max(held.sum(), 1.0), _spread(counts[inside], steps))


def _spread(counts: Doubles, steps: NDArray[np.intp]) -> Doubles:
    filled = counts > 0
    sums = np.bincount(steps, weights=counts)
    bins = np.bincount(steps, weights=filled)
    spread = np.where(filled, sums[steps] / np.maximum(bins[steps], 1), 0.0)
    return np.asarray(spread / max(spread.sum(), 1e-30))


def _divergence(p: Doubles, q: Doubles) -> float:
    filled = p > 0
    return float((p[filled] * np.log(p[filled] / np.maximum(q[filled], 1e-12))).sum())


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

    def observe(self, content: bytes, images: Iterable[NDArray[np.float32]], see: See) -> None:
        """Call `see` with name and value of every activation, image by image, [1, h, w, 3]."""

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
