"""Score a model's answers image by image, and select the candidates that may be the best.

Networks are overconfident by a factor of two or three (Guo et al. 2017, arXiv:1706.04599). A
candidate must not win because it lowers the confidence, so each is scored at its best temperature
within SHARPNESS. A temperature outside is itself the sign of a wrong input: for nets of ReLUs
without norms, x and x / 255 differ only in the scale of the logits.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kedge_runtime.arrays import Doubles, Flags, Indices
from kedge_runtime.artefact.contract import Output
from kedge_runtime.classify.outputs import sigmoid
from kedge_runtime.drift.intervals import paired_drop
from kedge_runtime.fitting.candidates import InputCandidate

LEVEL = 0.95
CLEARLY = 4.0  # standard errors behind the best: excluded
SHARPNESS = np.geomspace(0.2, 2, 12)  # inverse temperatures
_SHARPER = np.geomspace(0.5, 20, 12)  # two views of an image agree more than answer and truth
# A wrong geometry may be better than that of training by this share of the images: nets trained
# on aliased images, for example, are better on smooth ones (benchmarks/fit_input.py).
MARGIN = 0.1
_LEAST = 1e-7  # probabilities below it count as it
# The share of chance in every answer: a few confident errors must not decide. Two views of an
# image seldom contradict each other.
_CHANCE, _CHANCE_OF_VIEWS = 0.01, 1e-4


@dataclass(frozen=True, eq=False)
class Score:
    """Hold a candidate's scores on the first images.

    `values`: for each image, in nats over chance; `right`: whether the best class is the true one,
    None without ground truth.
    """

    candidate: InputCandidate
    values: Doubles
    right: Flags | None = None

    @property
    def mean(self) -> float:
        """The mean of the values."""
        return float(self.values.mean())


def evidence(answers: NDArray[Any], output: Output) -> Doubles:
    """Return logarithms of the classes' weights, [images, classes], from a model's outputs.

    Independent classes are compared by the logarithm of their probabilities. Values that are not
    finite become 0.
    """
    values = answers.astype(np.float64)
    if output.multi_label and output.kind == "logits":
        values = sigmoid(answers.astype(np.float32)).astype(np.float64)
    if output.multi_label or output.kind != "logits":
        values = np.log(np.clip(values, _LEAST, None))
    finite = np.isfinite(values).all(axis=1, keepdims=True)
    values = np.where(finite, values, 0.0)
    return np.asarray(values - values.max(axis=1, keepdims=True))


def log_softmax(values: Doubles) -> Doubles:
    """Return log probabilities along the last axis."""
    highest = values.max(axis=-1, keepdims=True)
    shifted = values - highest
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def likelihood(values: Doubles, classes: Indices) -> Doubles:
    """Return the log-likelihood of each image's true class minus chance's, [images], in nats."""
    rows, count = np.arange(len(classes)), values.shape[1]

    def scored(sharp: float) -> Doubles:
        ratio = count * np.exp(log_softmax(values * sharp)[rows, classes])
        return np.asarray(np.log(_CHANCE + (1 - _CHANCE) * ratio))

    return _sharpest(scored, SHARPNESS)


def agreement(values: Doubles, other: Doubles) -> Doubles:
    """Return how well two views of each image agree, [images], in nats.

    The logarithm of the chance that two views of one image draw the same class, over that for views
    of different images. It is high where answers are confident, varied, and the same for both
    views. It has a wider range of temperatures: otherwise a wrong input that makes the answers more
    confident would win.
    """

    def shared(sharp: float) -> Doubles:
        one, two = np.exp(log_softmax(values * sharp)), np.exp(log_softmax(other * sharp))
        overall = np.maximum((one.mean(axis=0) + two.mean(axis=0)) / 2, _LEAST)
        ratio = (one * two / overall).sum(axis=1)
        return np.asarray(np.log(_CHANCE_OF_VIEWS + (1 - _CHANCE_OF_VIEWS) * ratio))

    return _sharpest(shared, _SHARPER)


def _sharpest(score: Callable[[float], Doubles], sharpness: Doubles) -> Doubles:
    """Return the scores at the inverse temperature with the highest mean."""
    return max(map(score, map(float, sharpness)), key=lambda one: float(one.mean()))


def z_score(better: Doubles, worse: Doubles) -> float:
    """Return the mean paired difference over its standard error; 0 where all are equal."""
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


def may_be_best(values: Sequence[Doubles]) -> tuple[bool, ...]:
    """Return which candidates may be the best, by their values, each [images].

    The set holds the best with 95 % (Hsu 1984, Annals of Statistics 12, 1136-1144, with
    Bonferroni's bound). Those that are CLEARLY worse don't count among the rivals.
    """
    best = max(values, key=lambda one: float(one.mean()))
    behind = [z_score(best, one) for one in values]
    rivals = sum(z <= CLEARLY for z in behind) - 1
    limit = quantile(len(best), rivals)
    return tuple(z <= limit for z in behind)


def accuracy_lost(score: Score, best: Score) -> tuple[float, float]:
    """Return the 95 % interval of the best one's accuracy minus a score's, on the same images."""
    if score.right is None or best.right is None:
        return 0.0, 1.0
    one, other = score.right, best.right[: len(score.right)]
    low, high = paired_drop((other & ~one).sum(), (one & ~other).sum(), len(one))
    return float(low), float(high)
