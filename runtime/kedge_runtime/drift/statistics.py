"""Measure distances of answers, and compute confidence intervals and exact tests.

Answers are [images, classes] arrays: `reference` are the float model's logits, `candidate` the
artefact's, both float32; `kl` takes probabilities. Tests tell, too, how many images would decide a
gate.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kedge_runtime.arrays import Doubles, Flags, Floats, Indices

# What must be equal: the best class, the set of independent classes, or only the direction.
AgreementBy = Literal["best", "labels", "cosine"]


def top_k_agreement(reference: Floats, candidate: Floats, k: int) -> float:
    """Return the share of images whose best class by `reference` is among `candidate`'s k best."""
    best = reference.argmax(axis=1)
    ranked = np.argsort(-candidate, axis=1, kind="stable")[:, :k]
    return float((ranked == best[:, None]).any(axis=1).mean())


def label_agreement(reference: NDArray[np.bool_], candidate: NDArray[np.bool_]) -> float:
    """Return the share of images with equal sets of independent classes, both [images, classes]."""
    return float((reference == candidate).all(axis=1).mean())


def max_error(reference: Floats, candidate: Floats) -> float:
    """Return the largest absolute difference of any logit."""
    return float(np.abs(reference - candidate).max())


def mean_error(reference: Floats, candidate: Floats) -> float:
    """Return the mean absolute difference of the logits."""
    return float(np.abs(reference - candidate).mean())


def relative_error(reference: Floats, candidate: Floats, *, images: float = 1.0) -> float:
    """Return the largest absolute difference as a share of the largest reference logit.

    `images`: of that share of the images only, those with the least.
    """
    each = np.abs(reference - candidate).max(axis=1)
    return float(np.quantile(each, images)) / max(float(np.abs(reference).max()), 1e-12)


def cosine(reference: Floats, candidate: Floats) -> float:
    """Return the mean over images of the cosine between the two logit vectors."""
    a, b = reference.astype(np.float64), candidate.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / np.maximum(norms, 1e-12)).mean())


def kl(reference: Floats, candidate: Floats, *, multi_label: bool) -> float:
    """Return the mean over images of KL(reference || candidate) in nats, of probabilities.

    Independent classes (`multi_label`) add up their two-valued divergences.
    """
    p, q = _floored(reference), _floored(candidate)
    terms = p * np.log(p / q)
    if multi_label:
        terms += (1 - p) * np.log((1 - p) / (1 - q))
    return float(terms.sum(axis=1).mean())


def _floored(values: Floats) -> NDArray[np.float64]:
    return np.clip(values.astype(np.float64), 1e-12, 1 - 1e-12)


def sqnr(reference: Floats, found: Floats) -> float:
    """Return the ratio of signal to error power in dB."""
    signal = np.square(reference, dtype=np.float64).sum()
    noise = np.square(reference - found, dtype=np.float64).sum()
    return float(10 * np.log10(max(signal, 1e-30) / max(noise, 1e-30)))


LEVEL = 0.95
BINS = 15  # of a calibration error, as in Guo et al.
# The normal quantile of (1 + LEVEL) / 2.
Z = 1.959963984540054


Interval = tuple[Doubles, Doubles]

# Halvings of [-1, 1]: the bounds are right to 2**-52.
_HALVINGS = 53


def wilson(count: ArrayLike, total: ArrayLike) -> Interval:
    """Return the score interval of a share, 0..1: `count` of `total` >= 1.

    Wilson 1927, JASA 22, 209-212; recommended by Brown, Cai and DasGupta 2001, Statistical
    Science 16, 101-133.
    """
    n = np.asarray(total, np.float64)
    share = np.asarray(count, np.float64) / n
    centre = share + Z**2 / (2 * n)
    half = Z * np.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    scale = 1 + Z**2 / n
    return np.maximum((centre - half) / scale, 0), np.minimum((centre + half) / scale, 1)


def most_unseen(total: int) -> float:
    """Return the largest share of a kind that `total` images, none of that kind, leave possible.

    The upper end of the exact interval of Clopper and Pearson 1934, Biometrika 26, 404-413, at a
    count of 0: the "rule of three" with 3.7 in place of 3, as both of its ends are counted.
    """
    return float(1 - ((1 - LEVEL) / 2) ** (1 / total))


def paired_drop(lost: ArrayLike, gained: ArrayLike, total: ArrayLike) -> Interval:
    """Return the score interval of (lost - gained) / total, -1..1, of `total` >= 1 pairs.

    Tango 1998, Statistics in Medicine 17, 891-908: the differences that a score test of level 5 %
    doesn't reject, where what is unknown takes its likeliest value under each difference.
    """
    b, c, n = np.broadcast_arrays(*(np.asarray(x, np.float64) for x in (lost, gained, total)))
    point = (b - c) / n
    lows = _bound(b, c, n, np.full_like(point, -1.0), point)
    highs = _bound(b, c, n, np.full_like(point, 1.0), point)
    return lows, highs


def drop_differs(lost: ArrayLike, gained: ArrayLike, total: ArrayLike, limit: float) -> Flags:
    """Return whether `paired_drop` leaves out a drop of `limit`: what its test rejects."""
    b, c, n = np.broadcast_arrays(*(np.asarray(x, np.float64) for x in (lost, gained, total)))
    return np.asarray(_score_squared(b, c, n, np.full(n.shape, limit)) > Z**2)


def share_differs(count: ArrayLike, total: ArrayLike, limit: float) -> Flags:
    """Return whether `wilson` leaves out a share of `limit`: what its test rejects."""
    n = np.asarray(total, np.float64)
    error = np.asarray(count, np.float64) / n - limit
    return np.asarray(error**2 > Z**2 * limit * (1 - limit) / n)


def _bound(b: Doubles, c: Doubles, n: Doubles, far: Doubles, near: Doubles) -> Doubles:
    """Return where the test begins to reject, between the estimate (`near`) and an end (`far`)."""
    for _ in range(_HALVINGS):
        middle = (far + near) / 2
        kept = _score_squared(b, c, n, middle) <= Z**2
        near, far = np.where(kept, middle, near), np.where(kept, far, middle)
    return near


def _score_squared(b: Doubles, c: Doubles, n: Doubles, difference: Doubles) -> Doubles:
    """Return the squared statistic of Tango's test that lost - gained is `difference` * n."""
    # The likeliest share of gained pairs under the difference: Tango 1998, equation (7).
    first = 2 * n
    second = (2 * n - b + c) * difference - b - c
    third = -c * difference * (1 - difference)
    gained = (np.sqrt(np.maximum(second**2 - 4 * first * third, 0)) - second) / (2 * first)
    variance = n * (2 * gained + difference * (1 - difference))
    error = (b - c - n * difference) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error == 0, 0.0, np.where(variance > 0, error / variance, np.inf))


def mean_interval(values: Doubles) -> tuple[float, float]:
    """Return the normal interval of the mean of [n] values, n >= 2; exact sums, in any order."""
    n = len(values)
    mean = math.fsum(values) / n
    half = Z * math.sqrt(math.fsum((values - mean) ** 2) / (n - 1) / n)
    return mean - half, mean + half


def mcnemar(lost: int, gained: int) -> float:
    """Return the exact two-sided p-value that losing and gaining a pair are equally likely.

    The sign test on the discordant pairs: McNemar 1947, Psychometrika 12, 153-157, with the
    binomial distribution in place of its approximation.
    """
    return min(1.0, 2 * _tail(lost + gained, min(lost, gained)))


def _tail(n: int, k: int) -> float:
    """Return P(X <= k) of Binomial(n, 1/2)."""
    ways = _log_factorial(n)
    logs = ways[n] - ways[: k + 1] - ways[n - k : n + 1][::-1] - n * math.log(2)
    return math.fsum(np.exp(logs))


def hypergeometric_tail(drawn: int, marked: int, total: int, found: int) -> float:
    """Return P(X >= found) marked ones among `drawn` of `total`, `marked` of which are marked.

    Fisher's exact test, one-sided (Fisher 1934, Statistical Methods for Research Workers, 5th
    edition, section 21.02).
    """
    x = np.arange(max(found, drawn + marked - total), min(drawn, marked) + 1)
    f = _log_factorial(total)
    logs = f[marked] - f[x] - f[marked - x]
    logs += f[total - marked] - f[drawn - x] - f[total - marked - drawn + x]
    logs -= f[total] - f[drawn] - f[total - drawn]
    return min(1.0, math.fsum(np.exp(logs)))


@cache
def _log_factorial(n: int) -> Doubles:
    return np.array([math.lgamma(k + 1) for k in range(n + 1)])


def benjamini_hochberg(values: ArrayLike) -> Doubles:
    """Return the adjusted p-values of [n] tests: those <= q have a false discovery rate of q.

    Benjamini and Hochberg 1995, JRSS B 57, 289-300.
    """
    p = np.asarray(values, np.float64)
    order = np.argsort(p)[::-1]
    ranks = np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.minimum.accumulate(p[order] * len(p) / ranks), 1)
    return adjusted


POWER = 0.9
# The draws must hold a little more, so that other draws hold POWER, too (standard error .005).
_MARGIN = 0.02
_DRAWS = 4000
# The search gives up at this many times the images.
_MOST = 2**20
# The search ends when the number is known to 2 %.
_STEP = 1.02

# Counts, int [draws, cells], and their sum -> whether a run with them decides.
Decides = Callable[[Indices, int], Flags]


def images_needed(counts: Sequence[int], decides: Decides) -> int | None:
    """Return how many images decide a gate with a probability of POWER, given these counts.

    The true shares are uncertain: they are drawn from their posterior under Jeffreys' prior.
    None when _MOST times as many images don't decide.
    """
    shares = np.random.default_rng(0).dirichlet(np.asarray(counts) + 0.5, _DRAWS)
    n = sum(counts)
    low, high = float(n), 2.0 * n
    while not _enough(shares, round(high), decides):
        low, high = high, 2 * high
        if high > _MOST * n:
            return None
    while high / low > _STEP:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if _enough(shares, round(middle), decides) else (middle, high)
    return rounded_up(high)


def _enough(shares: Doubles, count: int, decides: Decides) -> bool:
    """Whether a run on `count` images decides often enough; the same draws for every count."""
    drawn = np.random.default_rng(1).multinomial(count, shares)
    return bool(decides(drawn, count).mean() >= POWER + _MARGIN)


def rounded_up(count: float) -> int:
    """Round up to two leading digits: the search is no more precise."""
    unit: int = 10 ** max(0, math.floor(math.log10(max(count, 1))) - 1)
    return math.ceil(count / unit) * unit
