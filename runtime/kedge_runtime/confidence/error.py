"""Measure the calibration error of probabilities, with an interval that holds.

The error is that of Guo et al. 2017 (arXiv:1706.04599): the mean gap of confidence and accuracy in
15 bins, weighted by images, as in `kedge drift`. Chance alone makes it positive: 100 images of a
perfect model have 8 %. So a percentile bootstrap never holds the true error of a good model.
The lower end here is the error less the 95 % quantile of the resampled gaps' distance, a norm ball
around the measured gaps: by the triangle inequality no nearer error is left out. The upper end is
the basic bootstrap's. benchmarks/confidence.py measures how often both hold.
"""

from typing import cast

import numpy as np

from kedge_runtime.arrays import Doubles, Flags, Floats, Indices
from kedge_runtime.artefact.confidence import Interval
from kedge_runtime.drift.statistics import BINS, LEVEL

DRAWS = 1000
_CHUNK = 1 << 22  # resampled counts in memory


def gaps(confidence: Floats | Doubles, right: Flags) -> Doubles:
    """Return how much each image adds to the gap of each bin, [n, BINS].

    `confidence`: 0..1, [n], or [n, classes] of independent classes; `right`: the same shape. The
    sum over images divided by their number (and by the classes) is a bin's gap.
    """
    values = confidence.reshape(len(confidence), -1).astype(np.float64)
    edges = np.linspace(0, 1, BINS + 1)
    members = np.clip(np.searchsorted(edges, values) - 1, 0, BINS - 1)
    differences = right.reshape(values.shape) - values
    rows = np.arange(len(values))[:, None] * BINS + members
    added = np.bincount(rows.ravel(), differences.ravel(), len(values) * BINS)
    return added.reshape(len(values), BINS) / values.shape[1]


def calibration_error(gaps: Doubles) -> Interval:
    """Return the calibration error, 0..1, and the ends of its 95 % interval, of `gaps`."""
    mean = gaps.mean(axis=0)
    error = float(np.abs(mean).sum())
    drawn = resampled(gaps)
    radius = float(np.quantile(np.abs(drawn - mean).sum(axis=1), LEVEL))
    least = float(np.quantile(np.abs(drawn).sum(axis=1), (1 - LEVEL) / 2))
    return error, max(0.0, error - radius), min(1.0, max(error, 2 * error - least))


def resampled(rows: Doubles) -> Doubles:
    """Return the means of rows, [n, k], over DRAWS resamplings of the images: [DRAWS, k]."""
    n = len(rows)
    random = np.random.default_rng(0)
    step = max(1, _CHUNK // n)
    means = [_counts(random, min(step, DRAWS - at), n) @ rows / n for at in range(0, DRAWS, step)]
    return cast(Doubles, np.concatenate(means))


def _counts(random: np.random.Generator, draws: int, n: int) -> Indices:
    """Return how often each of n images is drawn, [draws, n]; numpy's multinomial is slower."""
    drawn = random.integers(n, size=(draws, n)) + np.arange(draws)[:, None] * n
    return np.bincount(drawn.ravel(), minlength=draws * n).reshape(draws, n)
