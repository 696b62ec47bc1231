"""Bet against "nothing has changed": a test that may be looked at after every frame, for ever.

- A new value's rank among all earlier ones, calibration included, is a uniform number p if the
  values are exchangeable, and these numbers are independent (conformal test: Vovk, Gammerman and
  Shafer 2005, Algorithmic Learning in a Random World, theorem 8.2). No distribution is assumed, and
  the small number of calibration images costs power only, never validity.
- Among the values of one group only (the same predicted class) this holds too (Mondrian conformal,
  ibid. 4.5). So another mix of classes moves no test but that of the mix.
- A bet of density f(p), whose integral is 1, multiplies the wealth by f(p). Wealth is then a
  nonnegative martingale, and the chance that it ever reaches c times its start is at most 1 / c
  (Ville 1939; Vovk and Wang 2021, E-values, doi:10.1214/20-AOS2020).
- A fault may begin at any time. So the stake of 1 is paid in by parts, one part a frame, and each
  part is bet from its frame on: a mixture over the start, which is a martingale too (Shin, Ramdas
  and Rinaldo 2022, E-detectors, arXiv:2203.03532; here with a prior that adds up to 1, so that the
  bound is for the whole life and not for a mean time between alarms).
- Many tests share one error rate by a union: each has to reach tests / error.

Assumed: of the frames that are counted, none is more likely than another to come at its place,
within a predicted class. Neighbouring frames of a video break this, so they are thinned first
(thinning.py).
"""

from statistics import NormalDist

import numpy as np

from kedge_runtime.arrays import Doubles

_NORMAL = NormalDist()
_EDGE = 1e-9  # numbers closer to 0 or 1 bet as these do
_MOST = 1e12  # wealth above it is given away, which makes no alarm likelier

# Bets on all values: on a shift, in standard deviations of the normal score of p, and on a spread,
# as its factor. Bets on some of them, as when new classes come between the known ones: the share of
# values in each tail, and the factors of the odds of being there.
SHIFTS = np.array((-1.6, -0.8, -0.3, 0.3, 0.8, 1.6))
SPREADS = np.array((0.6, 1.6))
TAIL, TAIL_ODDS = 0.1, np.array((2.0, 4.0))
BETS = len(SHIFTS) + len(SPREADS) + 2 * len(TAIL_ODDS)
# The least change that is worth an alarm, in standard deviations, squares of them, and shares.
SHIFT, SPREAD, GROWTH = 0.3, 0.5, 1.8
_CUT = _NORMAL.inv_cdf(TAIL)

# The logs of the first bets as polynomials of the score, and the others' factors below, between and
# above the tails.
_SMOOTH = len(SHIFTS) + len(SPREADS)
_SQUARE = np.concatenate([np.zeros(len(SHIFTS)), (1 - SPREADS**-2) / 2])
_LINEAR = np.concatenate([SHIFTS, np.zeros(len(SPREADS))])
_CONSTANT = np.concatenate([-(SHIFTS**2) / 2, -np.log(SPREADS)])
_OUT = 1 / (1 + TAIL * (TAIL_ODDS - 1))
_TAILS = np.array([[*(_OUT * TAIL_ODDS), *_OUT], [*_OUT, *_OUT], [*_OUT, *(_OUT * TAIL_ODDS)]])

# Bets on a class that comes too often, as the factor of its odds.
ODDS = np.array((2.0, 5.0, 20.0))

# Half of the stake is bet from the first frame on, as a camera is most often set up wrong. Of the
# other half (1 + t / FRAMES) ** -SLOW is still to be paid in after t frames.
_FRAMES, _SLOW = 100.0, 0.2


def paid(frame: int) -> float:
    """Return the part of the stake that is paid in at a frame, counted from 0. All add up to 1."""
    before, after = ((1 + t / _FRAMES) ** -_SLOW for t in (frame, frame + 1))
    return float(before - after) / 2 + 0.5 * (frame == 0)


def ranks(below: Doubles, equal: Doubles, total: Doubles, random: Doubles) -> Doubles:
    """Return the conformal p of new values: their randomised rank, 0..1.

    `below`, `equal`: the number of earlier values that are smaller and in the same bin, of `total`;
    `random`: uniform numbers.
    """
    return np.asarray((below + random * (equal + 1)) / (total + 1))


def scores(p: Doubles) -> Doubles:
    """Return the normal scores of uniform numbers: standard normal ones, of the same shape."""
    inside = np.clip(p, _EDGE, 1 - _EDGE).tolist()
    return np.array([_NORMAL.inv_cdf(each) for each in inside])


def bets(normal: Doubles) -> Doubles:
    """Return the factors of bets on normal scores, [n, BETS]: density ratios to the normal law."""
    z, factors = normal[:, None], np.empty((len(normal), BETS))
    factors[:, :_SMOOTH] = np.exp((_SQUARE * z + _LINEAR) * z + _CONSTANT)
    factors[:, _SMOOTH:] = _TAILS[np.searchsorted((_CUT, -_CUT), normal)]
    return factors


def share_bets(p: Doubles, shares: Doubles) -> Doubles:
    """Return the factors of bets that p lies below a share more often than by chance, [n, 3].

    `shares`: known before the frame, within 0..1. The density is one number below the share and
    another one above it.
    """
    factors = 1 / (1 + shares[:, None] * (ODDS - 1))
    factors[p <= shares] *= ODDS
    return np.asarray(factors)


class Wealth:
    """The wealth of several tests with equal stakes on their bets: `money`, [tests, bets]."""

    def __init__(self, tests: int, bets: int) -> None:
        """Begin with nothing paid in."""
        self.money = np.zeros((tests, bets))

    def bet(self, factors: Doubles, frame: int) -> None:
        """Pay in the stake of a frame, and multiply by the factors, [tests, bets]."""
        self.money += paid(frame) / self.money.shape[1]
        self.money *= factors
        np.minimum(self.money, _MOST, out=self.money)

    def reached(self, error: float) -> list[int]:
        """Return the tests that reached `tests / error`: by chance any ever does with `error`."""
        money, tests = self.money, len(self.money)
        # The largest bet first: most frames end here.
        if money.max() * money.shape[1] < tests / error:
            return []
        due: list[int] = np.flatnonzero(money.sum(axis=1) >= tests / error).tolist()
        return due

    def withdraw(self, test: int) -> None:
        """Take a test's wealth out after an alarm: it goes on with what is still to be paid in."""
        self.money[test] = 0.0


def is_large(normal: Doubles) -> bool:
    """Whether normal scores, [frames], differ by so much that it is worth an alarm.

    A long stream proves any difference, such as that of a few hundred images from what they were
    drawn from; this leaves alarms out and adds none. The middle has moved by SHIFT, the square by
    SPREAD, or a tail holds GROWTH times its share.
    """
    tails = (normal <= _CUT).mean(), (normal >= -_CUT).mean()
    moved = abs(normal.mean()) >= SHIFT or abs((normal**2).mean() - 1) >= SPREAD
    return bool(moved or max(tails) >= GROWTH * TAIL)


def onset(factors: Doubles) -> int:
    """Return where a run of factors, the oldest first, began to pay: by the largest product to its
    end, the estimate of a change point by maximum likelihood (Page 1954).
    """
    gains = np.log(factors)[::-1].cumsum()
    return len(gains) - 1 - int(gains.argmax())
