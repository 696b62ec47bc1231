"""How many pictures would decide a gate that these can't: found by simulation, from a fixed seed.

What the counts of n pictures tell of the true shares is their posterior under Jeffreys's prior (a
Dirichlet distribution: half a picture is added to each count). True shares are drawn from it, runs
on N pictures from those, and N is the least number with which POWER of the runs decide (predictive
power: Spiegelhalter, Freedman and Blackburn 1986, Controlled Clinical Trials 7, 8-17). The common
formula takes the measured shares for the true ones, and so promises too much; it answers another
question, which is `as_measured` here.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from kedge_runtime.drift.intervals import Flags, Indices, Numbers

POWER = 0.9
# A little more is asked of the draws here, so that others hold POWER too (standard error .005).
_MARGIN = 0.02
_DRAWS = 4000
# Beyond this many times the pictures nothing is promised.
_MOST = 2**20
# The search ends when the number is known to 2 %.
_STEP = 1.02

# Counts, int [draws, cells], and their sum -> whether a run with them decides.
Decides = Callable[[Indices, int], Flags]


def images(counts: Sequence[int], decides: Decides) -> int | None:
    """Return how many pictures decide with a probability of POWER, all that is known considered.

    None when _MOST times as many don't.
    """
    shares = np.random.default_rng(0).dirichlet(np.asarray(counts) + 0.5, _DRAWS)
    return _least(shares, sum(counts), decides)


def images_as_measured(counts: Sequence[int], decides: Decides) -> int | None:
    """Return how many would if the measured shares were the true ones; None for no number."""
    total = sum(counts)
    return _least(np.tile(np.asarray(counts) / total, (_DRAWS, 1)), total, decides)


def _least(shares: Numbers, n: int, decides: Decides) -> int | None:
    low, high = float(n), 2.0 * n
    while not _enough(shares, round(high), decides):
        low, high = high, 2 * high
        if high > _MOST * n:
            return None
    while high / low > _STEP:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if _enough(shares, round(middle), decides) else (middle, high)
    return rounded_up(high)


def _enough(shares: Numbers, count: int, decides: Decides) -> bool:
    """Whether a run on `count` pictures decides often enough; the same draws for every count."""
    drawn = np.random.default_rng(1).multinomial(count, shares)
    return bool(decides(drawn, count).mean() >= POWER + _MARGIN)


def rounded_up(count: float) -> int:
    """Return two leading digits, rounded up: more would feign a precision that isn't there."""
    unit: int = 10 ** max(0, math.floor(math.log10(max(count, 1))) - 1)
    return math.ceil(count / unit) * unit
