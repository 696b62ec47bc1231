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

    A difference is what the one model got right less what the other did (-1, 0 or 1), or of two
    divergences. Repeatable.
    """
    _, which = np.unique([str(image) for image in images], return_inverse=True)
    sums = np.bincount(which, weights=differences)
    counts = np.bincount(which)
    drawn = np.random.default_rng(0).integers(len(sums), size=(RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def ratio(
    ours: NDArray[np.float64], theirs: NDArray[np.float64], images: Sequence[object]
) -> tuple[float, float, float]:
    """Return the ratio of two means over the same `images`, [n], and its 95 % interval.

    Repeatable. An image is drawn with both of its figures, in all of its draws.
    """
    _, which = np.unique([str(image) for image in images], return_inverse=True)
    above, below = (np.bincount(which, weights=values) for values in (ours, theirs))
    drawn = np.random.default_rng(0).integers(len(above), size=(RESAMPLES, len(above)))
    ratios = above[drawn].sum(axis=1) / below[drawn].sum(axis=1)
    low, high = np.quantile(ratios, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(above.sum() / below.sum()), float(low), float(high)
