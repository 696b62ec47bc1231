"""Compute exact binomial bounds, and the spread of a coverage, without SciPy.

A device has none. Sums are of at most some thousand terms.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from kedge_runtime.arrays import Doubles
from kedge_runtime.drift.statistics import LEVEL

_HALVINGS = 60  # of 0..1: right to the last bit


def at_least(count: int, total: int, share: float) -> float:
    """Return P(X >= count) of Binomial(total, share)."""
    if count <= 0:
        return 1.0
    if count > total or share <= 0:
        return 0.0
    if share >= 1:
        return 1.0
    k = np.arange(count, total + 1)
    logs = _log_choose(total, k) + k * math.log(share) + (total - k) * math.log1p(-share)
    return min(1.0, math.fsum(np.exp(logs)))


def least_share(count: int, total: int, error: float = 1 - LEVEL) -> float:
    """Return the lower one-sided bound of a share, `count` of `total`, which errs with `error`.

    Clopper and Pearson 1934, Biometrika 26, 404-413: exact, whatever the share.
    """
    return _crossing(lambda share: at_least(count, total, share) > error)


def coverage_ends(rank: int, images: int) -> tuple[float, float]:
    """Return the 95 % interval of the coverage in the long run, of a floor that is `rank`-th.

    The coverage of one calibration on n images is Beta(rank, n + 1 - rank) over calibrations (Vovk
    2012, arXiv:1209.2673; Angelopoulos and Bates 2021, section 3.2), whatever the model.
    """
    # P(Beta(k, n + 1 - k) <= x) = P(Binomial(n, x) >= k)
    low, high = (
        _crossing(lambda share, mass=mass: at_least(rank, images, share) > mass)  # type: ignore[misc]
        for mass in ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
    )
    return low, high


def covered_ends(rank: int, images: int, others: int) -> tuple[int, int]:
    """Return the 95 % interval of how many of `others` images are covered: beta-binomial.

    As of `coverage_ends`; Angelopoulos and Bates 2021, appendix C.
    """
    k = np.arange(others + 1)
    a, b = rank, images + 1 - rank
    logs = _log_choose(others, k) + _log_beta(k + a, others - k + b) - _log_beta(a, b)
    mass = np.cumsum(np.exp(logs))
    low, high = (int(np.searchsorted(mass, share)) for share in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return low, min(high, others)


def _crossing(holds: Callable[[float], bool]) -> float:
    """Return where a rising condition on 0..1 begins to hold."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return low


def _lgamma(values: ArrayLike) -> Doubles:
    return np.array([math.lgamma(value) for value in np.atleast_1d(values)])


def _log_choose(total: int, k: ArrayLike) -> Doubles:
    return math.lgamma(total + 1) - _lgamma(np.add(k, 1)) - _lgamma(np.subtract(total + 1, k))


def _log_beta(a: ArrayLike, b: ArrayLike) -> Doubles:
    return _lgamma(a) + _lgamma(b) - _lgamma(np.add(a, b))
