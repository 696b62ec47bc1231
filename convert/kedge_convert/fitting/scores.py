"""Judge a model's answers image by image, and say which candidates may be the best.

A candidate that only scales the logits must not win by that, so each is judged at the temperature
(Guo et al. 2017, arXiv:1706.04599) that suits it best: 0 is chance, more is better.
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.contract import Output
from kedge_runtime.head import sigmoid

Numbers = NDArray[np.float64]
Classes = NDArray[np.int64]
Flags = NDArray[np.bool_]

LEVEL = 0.95
# Inverse temperatures on which the best one is sought; 0 makes every answer chance.
_SHARPNESS = np.geomspace(1e-5, 20, 24)
_FINER = np.geomspace(0.6, 1 / 0.6, 9)
_LEAST = 1e-7  # probabilities below it are one


def evidence(answers: NDArray[Any], output: Output) -> Numbers:
    """Return logarithms of the classes' weights, [images, classes], of a model's numbers.

    Independent classes are compared by the logarithm of each one's probability. What is not finite
    tells nothing: it becomes 0.
    """
    values = answers.astype(np.float64)
    if output.multi_label and output.kind == "logits":
        values = sigmoid(answers.astype(np.float32)).astype(np.float64)
    if output.multi_label or output.kind != "logits":
        values = np.log(np.clip(values, _LEAST, None))
    finite = np.isfinite(values).all(axis=1, keepdims=True)
    values = np.where(finite, values, 0.0)
    return values - values.max(axis=1, keepdims=True)


def log_softmax(values: Numbers) -> Numbers:
    """Return log probabilities along the last axis."""
    highest = values.max(axis=-1, keepdims=True)
    return values - highest - np.log(np.exp(values - highest).sum(axis=-1, keepdims=True))


def likelihood(values: Numbers, classes: Classes) -> Numbers:
    """Return the log-likelihood of each image's true class less chance's, [images], in nats."""
    rows, chance = np.arange(len(classes)), math.log(values.shape[1])
    return _sharpest(lambda sharp: log_softmax(values * sharp)[rows, classes] + chance)


def agreement(values: Numbers, other: Numbers) -> Numbers:
    """Return how much one view of each image tells of the other's answer, [images], in nats.

    The logarithm of the chance that two views of one image draw the same class over that for views
    of different images: high where answers are sure, varied, and the same for both views.
    """
    return _sharpest(lambda sharp: _shared(values * sharp, other * sharp))


def _sharpest(judge: Callable[[float], Numbers]) -> Numbers:
    """Return what `judge` gives at the inverse temperature that suits it best, chance included."""
    tried = {float(sharp): judge(float(sharp)) for sharp in (0.0, *_SHARPNESS)}
    coarse = max(tried, key=lambda sharp: float(tried[sharp].mean()))
    tried |= {sharp: judge(sharp) for sharp in map(float, coarse * _FINER)}
    return max(tried.values(), key=lambda one: float(one.mean()))


def _shared(values: Numbers, other: Numbers) -> Numbers:
    one, two = np.exp(log_softmax(values)), np.exp(log_softmax(other))
    overall = np.maximum((one.mean(axis=0) + two.mean(axis=0)) / 2, _LEAST)
    # A little of chance keeps one image from deciding.
    return np.asarray(np.log(0.01 + 0.99 * (one * two / overall).sum(axis=1)))


def information(values: Numbers) -> Numbers:
    """Return the part of each image in the mutual information of image and answer, in nats."""
    logs = log_softmax(values)
    overall = np.log(np.maximum(np.exp(logs).mean(axis=0), _LEAST))
    return np.asarray((np.exp(logs) * (logs - overall)).sum(axis=1))


def z_score(better: Numbers, worse: Numbers) -> float:
    """Return the mean paired difference over its standard error; 0 where all are the same."""
    differences = better - worse
    error = float(differences.std(ddof=1)) / math.sqrt(len(differences))
    mean = float(differences.mean())
    return mean / error if error > 0 else math.copysign(math.inf, mean) if mean else 0.0


def quantile(images: int, compared: int, level: float = LEVEL) -> float:
    """Return the one-sided Student quantile that `compared` differences reach by chance together
    with 1 - `level` (Bonferroni); Cornish and Fisher's expansion of it (Hill 1970, CACM 13, 617).
    """
    z = NormalDist().inv_cdf(1 - (1 - level) / max(1, compared))
    free = max(1, images - 1)
    first = (z**3 + z) / (4 * free)
    second = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    return z + first + second


def may_be_best(values: Sequence[Numbers], compared: int) -> tuple[bool, ...]:
    """Return which of the candidates' per-image values, each [images], may be the best one's.

    The set holds the best with 95 % (Hsu 1984, Annals of Statistics 12, 1136-1144, with
    Bonferroni's bound). `compared`: how many candidates there were, dropped ones included.
    """
    best = max(values, key=lambda one: float(one.mean()))
    limit = quantile(len(best), compared - 1)
    return tuple(z_score(best, one) <= limit for one in values)
