"""Sum a tensor's values image by image, and estimate the factors of preparation."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kedge_convert.drift.shipped import ShippedStage
from kedge_convert.prepare.equalise import LARGEST
from kedge_runtime.arrays import Doubles, Floats

SILENT = 1e-6  # of the tensor's peak: the range of a smaller channel doesn't count
CEILING = 150.0  # dB; float32 itself has no more
TINY = 1e-30


@dataclass
class Sums:
    """Sum the powers of a pair of tensors: reference r, shipped q, error q - r."""

    signal: float = 0.0
    power: float = 0.0
    product: float = 0.0
    noise: float = 0.0

    def add(self, reference: Floats, shipped: Floats) -> None:
        """Add values of the same shape."""
        self.signal += _total(np.square(reference))
        self.power += _total(np.square(shipped))
        self.product += _total(reference * shipped)
        self.noise += _total(np.square(shipped - reference))

    @property
    def sqnr(self) -> float:
        """Signal to noise in dB."""
        return decibels(self.signal, self.noise)

    @property
    def cosine(self) -> float:
        """The cosine between reference and shipped."""
        return float(self.product / max(np.sqrt(self.signal * self.power), TINY))


@dataclass
class ValueRange:
    """Sum what a tensor's range must hold, in the file's units.

    `peaks`: [channels]; `power`: sum of squares; `beyond`: number of values outside the range.
    """

    peaks: NDArray[np.float64]
    power: float = 0.0
    beyond: int = 0
    count: int = 0

    def add(self, values: Floats, stage: ShippedStage) -> None:
        """Add the float layer's values."""
        low, high = stage.range
        # Half a step beyond the end is still rounded to the end.
        outside = (values < low - stage.step / 2) | (values > high + stage.step / 2)
        rows = np.abs(values).reshape(-1, values.shape[-1])
        self.peaks = np.maximum(self.peaks, rows.max(axis=0))
        self.power += float(np.square(rows, dtype=np.float64).sum())
        self.beyond += int(outside.sum())
        self.count += values.size

    def floor(self, step: float) -> float:
        """Return the SQNR in dB of rounding to the step alone: noise step^2 / 12."""
        return decibels(self.power, self.count * step**2 / 12)

    @property
    def spread(self) -> float:
        """The largest channel's peak to the median channel's."""
        active = self.peaks[self.peaks > SILENT * self.peaks.max(initial=0.0)]
        return float(active.max() / np.median(active)) if active.size else 1.0

    @property
    def crest(self) -> float:
        """The peak to the root mean square."""
        mean = np.sqrt(self.power / max(self.count, 1))
        return float(self.peaks.max(initial=0.0) / max(mean, TINY))


def decibels(signal: float, noise: float) -> float:
    """Return the ratio in dB, at most CEILING."""
    ratio = 10 * np.log10(max(signal, TINY) / max(noise, TINY))
    return float(min(ratio, CEILING))


def _total(values: Floats) -> float:
    return float(values.sum(dtype=np.float64))


CUT = 0.98  # of a tensor's peak: an enlarged value above it may have been clipped
ENOUGH = 0.01  # of a channel's power: with less of it below the cut, all of it is used


@dataclass
class GaugeMoments:
    """Sum by channel, [channels]: expected^2, and expected times found."""

    power: Doubles = field(default_factory=lambda: np.zeros(1))
    shared: Doubles = field(default_factory=lambda: np.zeros(1))

    def add(self, expected: Floats, found: Floats) -> None:
        """Add rows of [n, channels]."""
        self.power = self.power + np.square(expected).sum(axis=0, dtype=np.float64)
        self.shared = self.shared + (expected * found).sum(axis=0, dtype=np.float64)


@dataclass
class Gauge:
    """Estimate the factors of one tensor's channels; `fixed` ones are 1."""

    fixed: bool
    every: GaugeMoments = field(default_factory=GaugeMoments)
    uncut: GaugeMoments = field(default_factory=GaugeMoments)

    def add(self, expected: Floats, found: Floats) -> None:
        """Add the float model's values and the file's, both [..., channels]."""
        if self.fixed:
            return
        ours = expected.reshape(-1, expected.shape[-1])
        theirs = found.reshape(ours.shape)
        below = np.abs(theirs) < CUT * np.abs(theirs).max(initial=0.0)
        self.every.add(ours, theirs)
        self.uncut.add(ours * below, theirs)

    @property
    def factors(self) -> Floats:
        """Return the factors, [channels] or [1], from 1 to LARGEST; 1 for a silent channel."""
        enough = self.uncut.power > ENOUGH * self.every.power
        power = np.where(enough, self.uncut.power, self.every.power)
        shared = np.where(enough, self.uncut.shared, self.every.shared)
        ratio = np.divide(shared, power, out=np.ones_like(power), where=power > 0)
        return np.asarray(np.clip(ratio, 1.0, LARGEST), np.float32)
