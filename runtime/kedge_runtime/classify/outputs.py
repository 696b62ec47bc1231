"""Turn outputs into probabilities, and compute their order and entropy.

The activation is applied in float, exactly once.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.arrays import Floats
from kedge_runtime.artefact.contract import Activation, Output
from kedge_runtime.errors import EngineError

# The default where neither the contract nor the caller gives one.
THRESHOLD = 0.5


def softmax(logits: Floats) -> Floats:
    """Return probabilities along the last axis; the maximum is subtracted to avoid overflow."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float32)


def sigmoid(logits: Floats) -> Floats:
    """Return each class's own probability, computed with tanh, which can't overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)), np.float32)


ACTIVATIONS: dict[Activation, Callable[[Floats], Floats]] = {
    "softmax": softmax,
    "sigmoid": sigmoid,
}


def probabilities(outputs: Floats, output: Output) -> Floats:
    """Return the probabilities, [..., classes], of a model's outputs."""
    if output.kind != "logits":
        return outputs
    return ACTIVATIONS[output.activation](outputs / np.float32(output.temperature))


def reached(values: Floats, thresholds: Sequence[float], offset: int = 0) -> NDArray[np.bool_]:
    """Return which independent classes reach their thresholds, bool [..., outputs]."""
    return np.asarray(values >= limits(thresholds, offset))


def limits(thresholds: Sequence[float], offset: int = 0) -> Floats:
    """Return each class's threshold, float32 [outputs] or [1].

    `thresholds`: none for .5, one for all, or one per label; `offset`: outputs before the first
    label's.
    """
    stated = tuple(thresholds) or (THRESHOLD,)
    if len(stated) > 1:
        stated = (THRESHOLD,) * offset + stated
    return np.asarray(stated, np.float32)


def label_sets(values: Floats, output: Output) -> NDArray[np.bool_]:
    """Return which independent classes reach the contract's thresholds, bool [..., outputs]."""
    return reached(values, output.thresholds, output.label_offset)


def descending(values: Floats, k: int) -> NDArray[np.intp]:
    """Return the indices of the k largest of [classes]; ties go to the lower index.

    Only the values from the k-th largest on are sorted: a full sort of 1000 classes costs more than
    the rest of the step.
    """
    candidates = np.arange(values.size)
    if k < values.size:
        least = np.partition(values, values.size - k)[values.size - k]
        candidates = np.flatnonzero(values >= least)
    return candidates[np.argsort(-values[candidates], kind="stable")][:k]


def entropy(values: Floats) -> float:
    """Return the normalised entropy of exclusive classes, H / ln(classes), in 0..1.

    Quantised probabilities don't add up to 1, so they are normalised. Where all are 0 the entropy
    is 1.
    """
    total = float(values.sum())
    if values.size < 2 or not total > 0:
        return float(values.size > 1)
    shares = values[values > 0] / total
    nats = -float(np.dot(shares, np.log(shares)))
    return min(max(nats / math.log(values.size), 0.0), 1.0)


def mean_binary_entropy(values: Floats) -> float:
    """Return the mean entropy of independent classes, in bits, 0..1."""
    both = np.concatenate([values, 1 - values])
    both = both[both > 0]
    bits = -float(np.dot(both, np.log2(both))) / values.size
    return min(max(bits, 0.0), 1.0)


def check_finite(values: Floats) -> Floats:
    """Return `values`. Raises EngineError when one of them is infinite or NaN."""
    if not np.isfinite(values).all():
        raise EngineError("the model's outputs aren't finite: its file or its engine is broken")
    return values
