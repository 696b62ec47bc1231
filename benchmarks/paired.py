"""Intervals for differences between two models that answered the same images.

A paired bootstrap over images (Efron & Tibshirani 1993, chapters 6 and 13): an image is drawn
with all that is known of it, its answers in several draws of calibration images included, which
are not independent of each other (Davison & Hinkley 1997, section 3.8).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
LEVEL = 0.95

Interval = tuple[float, float]


def interval(differences: NDArray[np.float64], images: Sequence[object]) -> Interval:
    """Return the 95 % interval of the mean of `differences`, [n], which belong to `images`, [n].

    A difference is -1, 0 or 1: what the one model got right less what the other did. Repeatable.
    """
    _, which = np.unique([str(image) for image in images], return_inverse=True)
    sums = np.bincount(which, weights=differences)
    counts = np.bincount(which)
    drawn = np.random.default_rng(0).integers(len(sums), size=(RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
