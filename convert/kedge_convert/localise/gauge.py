"""By what preparation multiplied each channel of a tensor: estimated, so that it can be undone.

Equalisation enlarges a channel where its writer and its readers can make up for it
(docs/quantisation.md); the file's channel and the original's then differ by a factor and by noise.
The factor is the least-squares one. It is 1 wherever preparation can't have changed it, so that a
wrong scale shows there as what it is.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kedge_convert.prepare.equalise import LARGEST
from kedge_runtime.head import Floats

Doubles = NDArray[np.float64]

CUT = 0.98  # of a tensor's peak: an enlarged value above it may have been cut off there
ENOUGH = 0.01  # of a channel's power: with less of it below the cut, all of it is used


@dataclass
class Moments:
    """Sums by channel, [channels]: wanted^2, and wanted times found."""

    power: Doubles = field(default_factory=lambda: np.zeros(1))
    shared: Doubles = field(default_factory=lambda: np.zeros(1))

    def add(self, wanted: Floats, found: Floats) -> None:
        """Add rows of [n, channels]."""
        self.power = self.power + np.square(wanted).sum(axis=0, dtype=np.float64)
        self.shared = self.shared + (wanted * found).sum(axis=0, dtype=np.float64)


@dataclass
class Gauge:
    """The factors of one tensor as far as it has been seen; `fixed` ones are 1."""

    fixed: bool
    every: Moments = field(default_factory=Moments)
    uncut: Moments = field(default_factory=Moments)

    def add(self, wanted: Floats, found: Floats) -> None:
        """Learn from the original's values and the file's, both [..., channels]."""
        if self.fixed:
            return
        ours = wanted.reshape(-1, wanted.shape[-1])
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
