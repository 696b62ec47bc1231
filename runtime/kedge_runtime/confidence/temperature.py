"""Fit the temperature of a softmax or of sigmoids, and thresholds of independent classes.

The temperature is that of Guo et al. 2017, arXiv:1706.04599, section 4.2. It divides all logits
alike, so no best class changes. The targets are Platt's (1999, Probabilistic Outputs for Support
Vector Machines): the truth has not 1, but what one more image of each outcome would leave.
Otherwise images without a mistake would demand a temperature of 0.
"""

from collections.abc import Callable

import numpy as np

from kedge_runtime.arrays import Doubles, Flags, Floats, Indices
from kedge_runtime.classify.results import THRESHOLD
from kedge_runtime.drift.statistics import Z

LEAST, MOST = 0.05, 20.0  # temperatures
_GRID, _HALVINGS, _GOLDEN = 61, 24, (1 + 5**0.5) / 2  # right to 6 digits
DIGITS = 4  # of a temperature: the next ones change no probability by 1e-4
# Below this many true images a class keeps the default threshold.
LEAST_TRUE = 10


def of_softmax(logits: Floats, truth: Indices) -> float:
    """Return the temperature of exclusive classes; `logits`: [n, classes]; `truth`: [n].

    The likelihood is that of a right or a wrong best class at its probability: top-versus-all, Le
    Coz, Herbin and Adjed 2024, arXiv:2411.02988. The likelihood of the truth would also fit the
    order of the classes behind it, at the cost of the confidence, which is what people read.
    """
    right = logits.argmax(axis=1) == truth
    shifted = (logits - logits.max(axis=1, keepdims=True)).astype(np.float64)
    target = _targets(right)

    def loss(log_sharpness: float) -> float:
        # The best class has the power 1; its rivals' sum says everything.
        rivals = np.exp(np.exp(log_sharpness) * shifted).sum(axis=1) - 1
        rivals = np.maximum(rivals, 1e-12)
        return float((np.log1p(rivals) - (1 - target) * np.log(rivals)).mean())

    return _temperature(loss, right.size)


def _targets(true: Flags) -> Doubles:
    """Return Platt's targets, 0..1, in the shape of `true`."""
    count = int(true.sum())
    return np.where(true, (count + 1) / (count + 2), 1 / (true.size - count + 2))


def _least(loss: Callable[[float], float]) -> float:
    """Return the logarithm of the sharpness with the least loss: a grid, then golden sections."""
    grid = np.linspace(-np.log(MOST), -np.log(LEAST), _GRID)
    best = int(np.argmin([loss(float(each)) for each in grid]))
    low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, _GRID - 1)])
    for _ in range(_HALVINGS):
        left, right = high - (high - low) / _GOLDEN, low + (high - low) / _GOLDEN
        low, high = (low, right) if loss(left) < loss(right) else (left, high)
    return (low + high) / 2


def of_sigmoid(logits: Floats, truth: Flags) -> float:
    """Return the temperature of independent classes, both [n, classes]."""
    target = _targets(truth)

    def loss(log_sharpness: float) -> float:
        scaled = np.exp(log_sharpness) * logits.astype(np.float64)
        return float((np.logaddexp(0, scaled) - target * scaled).mean())

    return _temperature(loss, truth.size)


def _temperature(loss: Callable[[float], float], count: int) -> float:
    """Return the likeliest temperature; 1 unless it is better than that by more than chance.

    `loss`: the mean of `count` answers, in nats, by the logarithm of the sharpness. The test is
    Wilks's of the likelihood ratio, at a level of 5 %.
    """
    best = _least(loss)
    if 2 * count * (loss(0) - loss(best)) < Z**2:
        return 1.0
    return round(float(np.exp(-best)), DIGITS)


def thresholds(probabilities: Floats, truth: Flags) -> tuple[float, ...]:
    """Return the threshold of each class at its largest F1, both [n, classes].

    A class with fewer than LEAST_TRUE true images keeps the default.
    """
    return tuple(
        _threshold(column.astype(np.float64), true) if true.sum() >= LEAST_TRUE else THRESHOLD
        for column, true in zip(probabilities.T, truth.T, strict=True)
    )


def _threshold(probabilities: Doubles, true: Flags) -> float:
    order = np.argsort(-probabilities, kind="stable")
    values = np.append(probabilities[order], 0.0)
    hits = np.cumsum(true[order])
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + true.sum())
    f1[values[:-1] == values[1:]] = -1  # equal values can't be told apart
    best = int(f1.argmax())
    return round(float((values[best] + values[best + 1]) / 2), 6)


def f1_parts(chosen: Flags, truth: Flags) -> Doubles:
    """Return each image's labels that are right, chosen and true, [n, 3], both [n, classes]."""
    return np.stack([(chosen & truth).sum(1), chosen.sum(1), truth.sum(1)], axis=1).astype(float)
