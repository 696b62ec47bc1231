"""Rank classes by probability, and say how spread the probabilities are."""

import math

import numpy as np

from kedge_runtime.arrays import Floats, Places

# At most so many classes are found one by one.
ONE_BY_ONE = 16


def descending(values: Floats, k: int) -> Places:
    """Return the indices of the k largest of [classes]; ties go to the lower index.

    A few are found one by one: after a network's run the caches are cold, and each function of
    numpy that is called once costs more than another look at 1000 values. Of many, only the values
    from the k-th largest on are sorted.
    """
    if k <= ONE_BY_ONE:
        return _largest(values, min(k, values.size))
    candidates = np.arange(values.size)
    if k < values.size:
        least = np.partition(values, values.size - k)[values.size - k]
        candidates = np.flatnonzero(values >= least)
    return candidates[np.argsort(-values[candidates], kind="stable")][:k]


def _largest(values: Floats, k: int) -> Places:
    left, order = values.copy(), []
    for _ in range(k):
        order.append(int(left.argmax()))
        left[order[-1]] = -np.inf
    return np.array(order, np.intp)


def entropy(values: Floats) -> float:
    """Return the normalised entropy of exclusive classes, H / ln(classes), in 0..1.

    Quantised probabilities don't add up to 1, so they are normalised. Where all are 0 the entropy
    is 1.
    """
    total = float(values.sum())
    if values.size < 2 or not total > 0:
        return float(values.size > 1)
    positive = values > 0
    shares = (values if positive.all() else values[positive]) / total
    nats = -float(np.dot(shares, np.log(shares)))
    return min(max(nats / math.log(values.size), 0.0), 1.0)


def mean_binary_entropy(values: Floats) -> float:
    """Return the mean entropy of independent classes, in bits, 0..1."""
    both = np.concatenate([values, 1 - values])
    both = both[both > 0]
    bits = -float(np.dot(both, np.log2(both))) / values.size
    return min(max(bits, 0.0), 1.0)
